/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Choose a backend for a new association: by affinity, else by the service's Maglev table. */
#ifndef __SERVICE_H
#define __SERVICE_H

#include "hash.h"
#include "lb_maps.h"
#include "tuple.h"

#define NSEC_PER_SEC 1000000000ULL

static __always_inline struct service *find_service(const struct tuple *tuple)
{
	struct endpoint key = { .addr = tuple->daddr, .port = tuple->dport };

	return bpf_map_lookup_elem(&services, &key);
}

/* The backend of this id, if it may have another association of this service. */
static __always_inline struct backend *usable_backend(__u32 id, const struct service *service)
{
	struct backend *backend = bpf_map_lookup_elem(&backends, &id);

	if (!backend || backend->draining || backend->service != service->id)
		return NULL;
	return backend;
}

static __always_inline struct backend *backend_by_table(const struct service *service,
							const struct tuple *tuple, __u32 *id)
{
	/* With affinity, all of a client's associations have the same hash. */
	__be16 port = service->affinity ? 0 : tuple->sport;
	__u32 slot, *entry;

	if (!service->table_size)
		return NULL;
	slot = service->table +
	       hash_client(service->seed, &tuple->saddr, port) % service->table_size;
	entry = bpf_map_lookup_elem(&tables, &slot);
	if (!entry)
		return NULL;
	*id = *entry;
	return usable_backend(*id, service);
}

static __always_inline struct backend *backend_by_affinity(const struct service *service,
							   const struct affinity_key *key,
							   __u64 now, __u32 *id)
{
	struct affinity *affinity = bpf_map_lookup_elem(&affinities, key);

	if (!affinity || now > affinity->last + service->affinity * NSEC_PER_SEC)
		return NULL;
	*id = affinity->backend;
	return usable_backend(*id, service);
}

static __always_inline struct backend *choose_backend(const struct service *service,
						      const struct tuple *tuple, __u64 now,
						      __u32 *id)
{
	struct affinity_key key = { .client = tuple->saddr, .service = service->id };
	struct backend *backend = NULL;

	if (service->affinity)
		backend = backend_by_affinity(service, &key, now, id);
	return backend ?: backend_by_table(service, tuple, id);
}

/* What the client has got is its choice for as long as the service says, from now on. */
static __always_inline void keep_affinity(const struct service *service, const struct tuple *tuple,
					  __u64 now, __u32 id)
{
	struct affinity_key key = { .client = tuple->saddr, .service = service->id };
	struct affinity affinity = { .last = now, .backend = id };

	if (service->affinity)
		bpf_map_update_elem(&affinities, &key, &affinity, BPF_ANY);
}

#endif /* __SERVICE_H */
