/* SPDX-License-Identifier: Apache-2.0 */
/* Maps: many entries in one system call, one by one where the map's type has no batches. */
#include "maglane.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define KERNEL_ENOTSUPP 524
#define DEFAULT_CHUNK 4096
#define MAX_CHUNK (1u << 20)

/* How many elements a failed batch got through. The kernel leaves the count as it was where it refuses the whole. */
static uint32_t batch_done(uint32_t reported, uint32_t asked)
{
	return reported < asked ? reported : 0;
}

static void fail_batch(struct call *c, int error, const char *name, uint32_t done)
{
	fail_with(c, (struct failure){ .error = error, .subject = name, .batch = true, .done = done });
}

static napi_value map_update_batch(napi_env env, napi_callback_info info)
{
	struct call c = call_begin(env, info, "map_update_batch");
	int fd = arg_fd(&c, 0);
	struct bytes keys = arg_bytes(&c, 1, "keys"), values = arg_bytes(&c, 2, "values");
	uint32_t count = arg_number(&c, 3, "count", 0, UINT32_MAX), done;
	struct bpf_map_info map;
	uint64_t value_bytes;

	check_kind(&c, fd, FD_MAP);
	if (!map_info(&c, fd, &map))
		return NULL;
	value_bytes = map_value_bytes(&map);
	check_length(&c, map.name, "keys", keys, (uint64_t)count * map.key_size);
	check_length(&c, map.name, "values", values, count * value_bytes);
	if (c.failed)
		return NULL;
	if (count == 0)
		return give_number(env, 0);
	done = count;
	if (bpf_map_update_batch(fd, keys.data, values.data, &done, NULL) == 0)
		return give_number(env, done);
	if (errno != KERNEL_ENOTSUPP) {
		fail_batch(&c, errno, map.name, batch_done(done, count));
		return NULL;
	}
	for (done = 0; done < count; done++) {
		if (bpf_map_update_elem(fd, keys.data + (size_t)done * map.key_size, values.data + done * value_bytes,
					BPF_ANY) != 0) {
			fail_batch(&c, errno, map.name, done);
			return NULL;
		}
	}
	return give_number(env, done);
}

/*
 * The kernel's batch stops at the first key that is not there, which is no failure: that
 * key is stepped over and the batch goes on behind it.
 */
static napi_value map_delete_batch(napi_env env, napi_callback_info info)
{
	struct call c = call_begin(env, info, "map_delete_batch");
	int fd = arg_fd(&c, 0);
	struct bytes keys = arg_bytes(&c, 1, "keys");
	uint32_t count = arg_number(&c, 2, "count", 0, UINT32_MAX), at = 0, missing = 0;
	bool batches = true;
	struct bpf_map_info map;

	check_kind(&c, fd, FD_MAP);
	if (!map_info(&c, fd, &map))
		return NULL;
	check_length(&c, map.name, "keys", keys, (uint64_t)count * map.key_size);
	if (c.failed)
		return NULL;
	while (at < count) {
		uint8_t *from = keys.data + (size_t)at * map.key_size;
		uint32_t done = batches ? count - at : 1;
		int error = batches ? bpf_map_delete_batch(fd, from, &done, NULL) : bpf_map_delete_elem(fd, from);

		if (error == 0) {
			at += done;
			continue;
		}
		error = errno;
		if (batches)
			at += batch_done(done, count - at);
		if (error == ENOENT) {
			missing++;
			at++;
		} else if (batches && error == KERNEL_ENOTSUPP) {
			batches = false;
		} else {
			fail_batch(&c, error, map.name, at - missing);
			return NULL;
		}
	}
	return give_number(env, at - missing);
}

/* Entries read so far, growing as they come: a map may gain some while it is read. */
struct entries {
	uint8_t *keys, *values;
	uint64_t key_bytes, value_bytes;
	size_t count, room;
	bool only_count; /* each batch overwrites the one before; `passed` have been read */
	size_t passed;
};

/* Makes room for `more` entries behind those there. */
static bool entries_grow(struct entries *e, size_t more)
{
	size_t room = e->room ? e->room : more;
	uint8_t *grown;

	if (e->count + more <= e->room)
		return true;
	while (room < e->count + more)
		room *= 2;
	grown = realloc(e->keys, room * e->key_bytes + 1); /* + 1: keyless maps have 0 */
	if (!grown)
		return false;
	e->keys = grown;
	grown = realloc(e->values, room * e->value_bytes + 1);
	if (!grown)
		return false;
	e->values = grown;
	e->room = room;
	return true;
}

/* Returns 0, or an errno: ENOTSUPP when the map has no batches. */
static int entries_by_batch(struct entries *e, int fd, uint32_t chunk)
{
	/* Hash maps resume at a bucket number (4 bytes), the others at a key. */
	size_t cursor_bytes = e->key_bytes > 4 ? e->key_bytes : 4;
	uint8_t *cursor = calloc(2, cursor_bytes), *out = cursor + cursor_bytes;
	bool first = true;
	int error = 0;

	if (!cursor)
		return ENOMEM;
	for (;;) {
		uint32_t count = chunk;

		if (!entries_grow(e, chunk)) {
			error = ENOMEM;
			break;
		}
		error = bpf_map_lookup_batch(fd, first ? NULL : cursor, out, e->keys + e->count * e->key_bytes,
					     e->values + e->count * e->value_bytes, &count, NULL) == 0 ?
				0 :
				errno;
		if (error == ENOSPC && chunk < MAX_CHUNK) { /* one bucket holds more than a chunk: nothing was read */
			chunk *= 2;
			continue;
		}
		if (error == 0 || error == ENOENT)
			*(e->only_count ? &e->passed : &e->count) += count;
		if (error != 0)
			break;
		memcpy(cursor, out, cursor_bytes);
		first = false;
	}
	free(cursor);
	return error == ENOENT ? 0 : error;
}

/* Reads the entry behind the last. Returns 0, or an errno: ENOENT at the end. */
static int entries_next(struct entries *e, int fd)
{
	uint8_t *key = e->count ? e->keys + (e->count - 1) * e->key_bytes : NULL;
	uint8_t *next = e->keys + e->count * e->key_bytes;

	while (bpf_map_get_next_key(fd, key, next) == 0) {
		if (bpf_map_lookup_elem(fd, next, e->values + e->count * e->value_bytes) == 0) {
			e->count++;
			return 0;
		}
		if (errno != ENOENT)
			return errno;
		key = next; /* deleted just now: go on behind it */
	}
	return errno;
}

/*
 * Returns 0, or an errno. A key that vanishes while the map is read sends the kernel back
 * to the start, so this ends at max_entries at the latest.
 */
static int entries_by_key(struct entries *e, int fd, uint32_t max_entries)
{
	int error = 0;

	while (error == 0 && e->count < max_entries)
		error = entries_grow(e, 1) ? entries_next(e, fd) : ENOMEM;
	return error == ENOENT ? 0 : error;
}

static napi_value give_entries(struct call *c, const struct entries *e)
{
	void *keys, *values;
	napi_value result, key_array = give_bytes(c, e->count * e->key_bytes, &keys), value_array;

	if (c->failed)
		return NULL;
	value_array = give_bytes(c, e->count * e->value_bytes, &values);
	if (c->failed || napi_create_object(c->env, &result) != napi_ok)
		return NULL;
	if (e->count > 0) {
		memcpy(keys, e->keys, e->count * e->key_bytes);
		memcpy(values, e->values, e->count * e->value_bytes);
	}
	set(c->env, result, "keys", key_array);
	set(c->env, result, "values", value_array);
	set(c->env, result, "count", give_number(c->env, e->count));
	return result;
}

static napi_value map_entries(napi_env env, napi_callback_info info)
{
	struct call c = call_begin(env, info, "map_entries");
	int fd = arg_fd(&c, 0), error;
	uint32_t chunk = arg_absent(&c, 1) ? DEFAULT_CHUNK : arg_number(&c, 1, "chunk", 1, MAX_CHUNK);
	struct bpf_map_info map;
	struct entries e = { 0 };
	napi_value result = NULL;

	check_kind(&c, fd, FD_MAP);
	if (!map_info(&c, fd, &map))
		return NULL;
	e.key_bytes = map.key_size;
	e.value_bytes = map_value_bytes(&map);
	error = entries_by_batch(&e, fd, chunk < map.max_entries ? chunk : map.max_entries);
	if (error == KERNEL_ENOTSUPP)
		error = entries_by_key(&e, fd, map.max_entries);
	if (error)
		fail(&c, error, map.name);
	else
		result = give_entries(&c, &e);
	free(e.keys);
	free(e.values);
	return result;
}

/* A map that programs write to does not know its number of entries: they have to be read, but not kept. */
static napi_value map_count(napi_env env, napi_callback_info info)
{
	struct call c = call_begin(env, info, "map_count");
	int fd = arg_fd(&c, 0), error;
	struct entries e = { .only_count = true };
	struct bpf_map_info map;

	check_kind(&c, fd, FD_MAP);
	if (!map_info(&c, fd, &map))
		return NULL;
	e.key_bytes = map.key_size;
	e.value_bytes = map_value_bytes(&map);
	error = entries_by_batch(&e, fd, DEFAULT_CHUNK < map.max_entries ? DEFAULT_CHUNK : map.max_entries);
	if (error)
		fail(&c, error, map.name);
	free(e.keys);
	free(e.values);
	return error ? NULL : give_number(env, e.passed);
}

const struct function batch_functions[] = {
	{ "mapUpdateBatch", map_update_batch },
	{ "mapDeleteBatch", map_delete_batch },
	{ "mapEntries", map_entries },
	{ "mapCount", map_count },
};
const size_t batch_function_count = ARRAY_SIZE(batch_functions);
