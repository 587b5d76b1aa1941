/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Network policy. An endpoint that is selected in a direction may associate only
 * with peers and ports that the longest matching prefix allows.
 */
#ifndef __POLICY_H
#define __POLICY_H

#include "lb_maps.h"
#include "tuple.h"

static __always_inline bool port_is_allowed(const struct policy_ports *ports, __u16 port)
{
	int i;

	for (i = 0; i < MAX_PORT_RANGES && i < ports->nr; i++)
		if (ports->range[i].first <= port && port <= ports->range[i].last)
			return true;
	return false;
}

static __always_inline bool endpoint_allows(const struct ip_addr *addr, enum policy_dir dir,
					    const struct ip_addr *peer, __be16 port)
{
	struct endpoint_policy *endpoint = bpf_map_lookup_elem(&policy_endpoints, addr);
	struct policy_ports *ports;
	struct policy_key key;

	if (!endpoint || !endpoint->selected[dir])
		return true;
	key.prefix_len = POLICY_KEY_BITS;
	key.endpoint = bpf_htonl(endpoint->id * 2 + dir);
	key.peer = *peer;
	ports = bpf_map_lookup_elem(&policy_prefixes, &key);
	return ports && port_is_allowed(ports, bpf_ntohs(port));
}

/* Whether @from may associate with @to at @port, by the policies of both. */
__noinline int policy_allows(const struct ip_addr *from, const struct ip_addr *to, __be16 port)
{
	if (!from || !to)
		return false;
	return endpoint_allows(from, POLICY_EGRESS, to, port) &&
	       endpoint_allows(to, POLICY_INGRESS, from, port);
}

static __always_inline bool has_policy(const struct tuple *tuple)
{
	return bpf_map_lookup_elem(&policy_endpoints, &tuple->saddr) ||
	       bpf_map_lookup_elem(&policy_endpoints, &tuple->daddr);
}

#endif /* __POLICY_H */
