/* SPDX-License-Identifier: Apache-2.0 */
/* Ring buffers: records from the kernel, read on the event loop. */
#include "maglane.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define RECORDS_PER_TURN 1024 /* then timers and sockets get their turn */

struct ring {
	struct ring_buffer *records;
	struct watch *watch;
	napi_env env; /* of the reading at hand, like what follows */
	napi_value on_record;
	int turn; /* records read in this one */
};

static int ring_record(void *data, void *record, size_t size)
{
	struct ring *ring = data;
	struct call c = { .env = ring->env, .op = "ring_buffer" };
	napi_handle_scope scope;
	napi_value receiver, array;
	bool going = true;
	void *copy;

	if (napi_open_handle_scope(c.env, &scope) != napi_ok)
		return -ECANCELED;
	array = give_bytes(&c, size, &copy);
	if (array) {
		memcpy(copy, record, size);
		napi_get_undefined(c.env, &receiver);
		if (napi_call_function(c.env, receiver, ring->on_record, 1, &array, NULL) != napi_ok)
			going = report_exception(c.env);
	}
	napi_close_handle_scope(c.env, scope);
	/* A negative result ends the turn, with this record taken. */
	return going && watch_running(ring->watch) && ++ring->turn < RECORDS_PER_TURN ? 0 : -ECANCELED;
}

static bool ring_read(napi_env env, napi_value on_record, void *data)
{
	struct ring *ring = data;

	ring->env = env;
	ring->on_record = on_record;
	ring->turn = 0;
	ring_buffer__consume(ring->records);
	return ring->turn >= RECORDS_PER_TURN;
}

static void ring_free(void *data)
{
	struct ring *ring = data;

	ring_buffer__free(ring->records);
	free(ring);
}

static napi_value ring_buffer(napi_env env, napi_callback_info info)
{
	static const struct watch_kind kind = { "maglane:ring", ring_read, ring_free };
	struct call c = call_begin(env, info, "ring_buffer");
	int fd = arg_fd(&c, 0);
	struct bpf_map_info map;
	struct ring *ring;

	check_kind(&c, fd, FD_MAP);
	if (!map_info(&c, fd, &map))
		return NULL;
	ring = calloc(1, sizeof(*ring));
	if (!ring) {
		fail(&c, ENOMEM, map.name);
		return NULL;
	}
	ring->records = ring_buffer__new(fd, ring_record, ring, NULL);
	if (ring->records)
		return watch_start(&c, 1, ring_buffer__epoll_fd(ring->records), &kind, ring, &ring->watch);
	fail(&c, errno, map.name);
	free(ring);
	return NULL;
}

const struct function ring_functions[] = { { "ringBuffer", ring_buffer } };
const size_t ring_function_count = ARRAY_SIZE(ring_functions);
