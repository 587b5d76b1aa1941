/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Keys and values of the load balancer's maps. User space has them by BTF. */
#ifndef __LB_TYPES_H
#define __LB_TYPES_H

#include "addr.h"

/* The addresses and ports of a packet, as it is on the wire. */
struct tuple {
	struct ip_addr saddr;
	struct ip_addr daddr;
	__be16 sport;
	__be16 dport;
};

/* Where a packet goes in its association. */
enum direction {
	DIR_ORIGINAL,		/* from the side that sent the first INIT */
	DIR_REPLY,
};

/* What packets of a tuple become. An association has a path for each way, and for each pair of addresses. */
struct path {
	__u64 assoc;
	__u64 seen;		/* when the last packet came: CLOCK_MONOTONIC, in ns; 0: none yet */
	struct tuple to;
	__u8 dir;		/* enum direction */
	__u8 confirmed;		/* it has carried the right tag, or an INIT has opened it, there and back */
	__u8 shared;		/* several there have one back, which leads where the last packet came from */
	__u8 pad1;
	__u16 mtu;		/* from here on, what packets note: of the route, back to the client */
	__u16 mtu_time;		/* when it was that: mtu.h */
	__u32 allowed;		/* by which policies, and as whose: allowed_by() of conntrack.h */
};

/* RFC 9260 section 4, as seen from between the two sides. */
enum assoc_state {
	ASSOC_CLOSED,
	ASSOC_COOKIE_WAIT,
	ASSOC_COOKIE_ECHOED,
	ASSOC_ESTABLISHED,
	ASSOC_SHUTDOWN_SENT,
	ASSOC_SHUTDOWN_ACK_SENT,
	ASSOC_STATE_MAX,
};

/* The tags that packets must carry, by direction. 0: not known yet. */
struct tags {
	__be32 tag[2];
};

struct assoc {
	struct bpf_timer timer;
	struct bpf_spin_lock lock;	/* for what packets change: state to before, and indexed */
	__u32 state;			/* enum assoc_state */
	struct tags tags;
	__u64 expires;			/* CLOCK_MONOTONIC, in ns */
	__u64 packets[2];		/* by direction */
	__u64 id;			/* its key; 0: it is being deleted */
	__u64 heard;			/* when the backend was last heard */
	__u64 asked;			/* when the last of the INITs below came */
	__u8 unanswered;		/* the client's INITs since the backend was heard */
	__u8 opened_by;			/* the direction whose INIT was confirmed last */
	__u8 inits;			/* a bit for each direction that has sent another INIT */
	__u8 asker;			/* the direction whose INIT the pending tags answer */
	struct tags pending;		/* of a restart that no COOKIE ECHO has confirmed */
	struct tags earlier;		/* what was pending before, by another answer to the same side */
	struct tags before;		/* of what ended here, of which one side may not know yet */
	__be32 indexed[2];		/* the tags, by direction, by which it is in the map by_tag */
	__u32 opener;			/* the node that opened it, whose copy user space ends; 0: this one */
	__u64 created;
	struct tuple original;		/* of packets to the service */
	struct tuple translated;	/* what they become */
	__u32 service;			/* 0: none, tracked for its policy */
	__u32 backend;
};

/* The most addresses of a client, of a service and of a backend. */
#define MAX_ADDRS 8

struct addr_list {
	__u32 nr;
	struct ip_addr addr[MAX_ADDRS];
};

/* Of an association with several addresses on some side: a path joins two of one family. */
struct assoc_addrs {
	struct addr_list client;
	struct addr_list vip;		/* as clients know the backend */
	struct addr_list backend;
	__u32 available;		/* a bit for each of the backend's that it uses */
	__u32 offered[3];		/* by its INIT ACKs, to the COOKIE ECHO that has this tag: */
	__be32 offered_tag[3];		/* first that of the association, then of the last two others */
	__u8 leaving;			/* a bit for each of the client's that go when the backend answers */
	__u8 leaver;			/* this one, from which the client has said so: its bit */
	__u8 pad[2];
	__u32 source_translated;	/* backends see these, not the client's: */
	struct ip_addr source[2];	/* IPv4, IPv6; zero: none */
};

/* How packets say whose they are, whatever their addresses: those to a backend, and its own. */
struct tag_key {
	__be32 tag;
	__be16 sport;
	__be16 dport;
};

/* An INIT, by the association that it belongs to and its initiate tag. */
struct asked_key {
	__u64 assoc;
	__be32 tag;
	__u32 pad;
};

#define SERVICE_NAME_LEN 160

/* For who looks: programs do not read it. */
struct service_name {
	__u8 text[SERVICE_NAME_LEN];
};

/* A service's port, by where clients reach it. */
struct service {
	__u32 id;
	__u32 seed;		/* of the hash, the same on every node */
	__u32 table;		/* its slots in the map of that name */
	__u32 table_size;	/* 0: it has no backend */
	__u32 affinity;		/* in seconds; 0: none */
	__u32 group;		/* its VIPs in the map of that name: paths of one association */
	__u8 masquerade;
	__u8 pad[3];
};

struct backend {
	struct endpoint addr;	/* the primary */
	__u32 service;
	__u8 draining;
	__u8 pad[3];
	struct addr_list addrs;	/* all of them, the primary first */
};

struct affinity_key {
	struct ip_addr client;
	__u32 service;
};

struct affinity {
	__u64 last;		/* CLOCK_MONOTONIC, in ns */
	__u32 backend;
	__u32 pad;
};

/* An endpoint that a policy selects. */
struct endpoint_policy {
	__u32 id;
	__u8 selected[2];	/* by enum policy_dir */
	__u8 pad[2];
};

enum policy_dir {
	POLICY_INGRESS,
	POLICY_EGRESS,
};

struct policy_key {
	__u32 prefix_len;	/* in bits, of what follows */
	__be32 endpoint;	/* id * 2 + direction */
	struct ip_addr peer;
};

#define POLICY_KEY_BITS 160
#define MAX_PORT_RANGES 16

struct port_range {
	__u16 first;
	__u16 last;
};

/* The ports that a prefix's peers may use, of the side that is associated with. */
struct policy_ports {
	__u32 nr;
	struct port_range range[MAX_PORT_RANGES];
};

struct lb_settings {
	__u32 generation;		/* of the policies */
	__u32 layout;			/* of all maps, for user space */
	struct ip_addr masquerade[2];	/* this node's, IPv4 and IPv6; zero: none */
	__u32 service_only;		/* backends are reached by their services only */
	__u32 node;			/* this one, as others know it: a random number that is not 0 */
	__u64 netns;			/* the cookie of the network namespace that the devices are in */
};

enum event_kind {
	EVENT_NEW,
	EVENT_STATE,
	EVENT_DROP,
};

struct event {
	__u64 time;		/* CLOCK_MONOTONIC, in ns */
	__u32 kind;		/* enum event_kind */
	__u32 detail;		/* enum assoc_state, or enum stat of a drop */
	struct tuple tuple;	/* as the packet came; of an association: the original */
	struct tuple translated;
	__be32 vtag;
	__u32 ifindex;
};

#endif /* __LB_TYPES_H */
