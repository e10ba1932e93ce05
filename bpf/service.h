/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* From an address and port to a service, a set of its backends, and one of them. */
#ifndef MAGLANE_SERVICE_H
#define MAGLANE_SERVICE_H

#include "maps.h"
#include "hash.h"

/* `port` in network byte order. NULL: not ours. */
static __always_inline struct frontend *find_frontend(const struct addr *addr, __be16 port,
						      __u8 proto)
{
	struct frontend_key key = { .addr = *addr, .port = port, .proto = proto };

	return bpf_map_lookup_elem(&frontends, &key);
}

static __always_inline struct service *find_service(__u32 id)
{
	return bpf_map_lookup_elem(&services, &id);
}

static __always_inline const struct node *get_node(void)
{
	__u32 only = 0;

	return bpf_map_lookup_elem(&node, &only);
}

/* The backend id in a slot of the ring; 0, which is nobody's id, beyond its end. */
static __always_inline __u32 ring_at(__u32 index)
{
	__u32 page = index / RING_CHUNK;
	struct ring_chunk *chunk = bpf_map_lookup_elem(&ring, &page);

	if (!chunk)
		return 0;
	return chunk->slot[index % RING_CHUNK];
}

/*
 * A backend of that service; NULL when the id is not one of its backends. Asking for the
 * service guards against an id that has been given away since it was remembered.
 */
static __always_inline struct backend *get_backend(__u32 id, __u32 service)
{
	struct backend *backend;

	if (id == 0)
		return NULL;
	backend = bpf_map_lookup_elem(&backends, &id);
	if (!backend || backend->service != service)
		return NULL;
	return backend;
}

/* Where a new connection comes from, as policy Local of an external frontend sees it. */
enum origin {
	FROM_INSIDE, /* the node or a pod: kube-proxy's short circuit, any endpoint will do */
	FROM_OUTSIDE,
};

/* The set that a traffic policy gives a new connection. */
static __always_inline enum set_index set_for(const struct service *svc, enum frontend_kind kind,
					      enum origin origin)
{
	if (kind == FRONTEND_CLUSTER_IP)
		return svc->flags & SERVICE_INTERNAL_LOCAL ? SET_LOCAL : SET_CLUSTER;
	return origin == FROM_OUTSIDE && svc->flags & SERVICE_EXTERNAL_LOCAL ? SET_LOCAL : SET_CLUSTER;
}

static __always_inline const struct backend_set *get_set(const struct service *svc,
							 enum set_index set)
{
	return set == SET_LOCAL ? &svc->sets[SET_LOCAL] : &svc->sets[SET_CLUSTER];
}

#endif
