/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The one way to a backend for a new connection: the one that the client had before, where
 * sessionAffinity is ClientIP and that backend may still be chosen; otherwise a hash's.
 */
#ifndef MAGLANE_AFFINITY_H
#define MAGLANE_AFFINITY_H

#include "balance.h"

/* Seconds since boot. The coarse clock: it is read for each packet. */
static __always_inline __u32 coarse_seconds(void)
{
	return bpf_ktime_get_coarse_ns() / 1000000000;
}

/*
 * The backend id that this client used less than affinity_seconds ago and may use again; 0:
 * none. Using it starts the time again (kube-proxy: each new connection refreshes).
 */
static __always_inline __u32 affinity_get(const struct affinity_key *key, const struct service *svc,
					  enum set_index set)
{
	struct affinity *known = bpf_map_lookup_elem(&affinity, key);
	__u32 now = coarse_seconds();
	struct backend *backend;
	__u32 id;

	/* Signed: another CPU may have seen the next second already. */
	if (!known || (__s32)(now - known->used) >= (__s32)svc->affinity_seconds)
		return 0;
	id = known->backend;
	backend = get_backend(id, key->service);
	if (!backend || !(backend->flags & (set == SET_LOCAL ? BACKEND_IN_LOCAL : BACKEND_IN_CLUSTER)))
		return 0;
	if (known->used != now)
		known->used = now;
	return id;
}

static __always_inline void affinity_set(const struct affinity_key *key, __u32 backend)
{
	struct affinity entry = { .backend = backend, .used = coarse_seconds() };

	bpf_map_update_elem(&affinity, key, &entry, BPF_ANY);
}

/* `backend` is NULL when there is none: get_set()->count == 0, or else the maps are wrong. */
struct choice {
	struct backend *backend;
	__u32 id;
};

/*
 * Chooses from a set, and remembers it for affinity. `client` is the source address; for a
 * socket, what struct affinity_key says. count_connection() is the caller's, who knows
 * whether the choice is put to use.
 */
static __always_inline struct choice choose_backend(__u32 service, struct service *svc,
						    enum set_index set, enum asker by,
						    __u32 hash, const struct addr *client)
{
	struct affinity_key key = { .service = service, .client = *client };
	int sticky = svc->affinity_seconds != 0;
	struct choice choice = {};

	if (sticky)
		choice.id = affinity_get(&key, svc, set);
	if (choice.id != 0) {
		choice.backend = get_backend(choice.id, service);
	} else {
		choice.id = pick_backend(svc, set, by, hash, client);
		choice.backend = get_backend(choice.id, service);
		if (choice.backend && sticky)
			affinity_set(&key, choice.id);
	}
	return choice;
}

static __always_inline void count_connection(struct backend *backend)
{
	__sync_fetch_and_add(&backend->connections, 1);
}

enum outcome {
	CHOSEN,
	NO_ENDPOINTS, /* anywhere */
	NO_LOCAL,     /* policy Local, and none on this node */
	INCONSISTENT, /* the maps point at nothing */
};

static __always_inline enum outcome choose_from(struct service *svc, __u32 id,
						enum frontend_kind kind, enum origin origin,
						enum asker by, __u32 hash,
						const struct addr *client, struct choice *choice)
{
	enum set_index set;

	if (!svc)
		return INCONSISTENT;
	set = set_for(svc, kind, origin);
	*choice = choose_backend(id, svc, set, by, hash, client);
	if (choice->backend)
		return CHOSEN;
	if (get_set(svc, set)->count != 0)
		return INCONSISTENT;
	return svc->flags & SERVICE_HAS_ANY ? NO_LOCAL : NO_ENDPOINTS;
}

/*
 * Chooses for a new connection to a frontend; fills `choice` when CHOSEN.
 *
 * The kernel may give the memory of a replaced service record to the next record written,
 * while we still read the old one (since 6.1; measured, 2 in 400,000 choices under constant
 * rewriting). A backend found that way is right, as get_backend() asks whose it is; a failure
 * may not be, so it counts only if the record has not been replaced meanwhile.
 */
static __always_inline enum outcome choose_for_frontend(const struct frontend *frontend,
							enum origin origin, enum asker by,
							__u32 hash, const struct addr *client,
							struct choice *choice)
{
	__u32 id = frontend->service;
	__u8 kind = frontend->kind;
	struct service *svc = find_service(id), *now;
	enum outcome outcome = choose_from(svc, id, kind, origin, by, hash, client, choice);

	if (outcome == CHOSEN)
		return CHOSEN;
	now = find_service(id);
	if (now == svc)
		return outcome;
	return choose_from(now, id, kind, origin, by, hash, client, choice);
}

#endif
