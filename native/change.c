/* SPDX-License-Identifier: Apache-2.0 */
/* BPF objects: what can be changed between opening and loading. */
#include "maglane.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

static napi_value object_set_max_entries(napi_env env, napi_callback_info info)
{
	struct call c = call_begin(env, info, "object_set_max_entries");
	struct object *object = object_begin(&c);
	char name[NAME_ROOM] = "";
	struct bpf_map *map = object ? arg_map(&c, object, name) : NULL;
	uint32_t entries = arg_number(&c, 1, "entries", 1, UINT32_MAX);
	int error;

	if (c.failed)
		return NULL;
	error = bpf_map__set_max_entries(map, entries);
	if (error)
		fail(&c, error, name);
	return NULL;
}

/* Programs are compiled against the object's sizes, and would read past smaller entries. */
static bool same_shape(const struct bpf_map *map, const struct bpf_map_info *held, char *text, size_t room)
{
	const struct {
		const char *what;
		uint32_t held, wanted;
	} facts[] = {
		{ "type", held->type, bpf_map__type(map) },
		{ "key size", held->key_size, bpf_map__key_size(map) },
		{ "value size", held->value_size, bpf_map__value_size(map) },
		{ "flags", held->map_flags, bpf_map__map_flags(map) },
	};

	for (size_t i = 0; i < ARRAY_SIZE(facts); i++) {
		if (facts[i].held != facts[i].wanted) {
			snprintf(text, room, "the given map has %s %u, the object declares %u", facts[i].what,
				 facts[i].held, facts[i].wanted);
			return false;
		}
	}
	return true;
}

static napi_value object_reuse_map(napi_env env, napi_callback_info info)
{
	struct call c = call_begin(env, info, "object_reuse_map");
	struct object *object = object_begin(&c);
	char name[NAME_ROOM] = "", difference[128];
	struct bpf_map *map = object ? arg_map(&c, object, name) : NULL;
	int fd = arg_fd(&c, 1), error;
	struct bpf_map_info held;

	check_unloaded(&c, object, name);
	check_kind(&c, fd, FD_MAP);
	if (!map_info(&c, fd, &held))
		return NULL;
	if (!same_shape(map, &held, difference, sizeof(difference))) {
		fail_because(&c, EINVAL, name, difference);
		return NULL;
	}
	error = bpf_map__reuse_fd(map, fd);
	if (error)
		fail(&c, error, name);
	return NULL;
}

/* libbpf calls it "<start of the object's name>.rodata". NULL after throwing. */
static struct bpf_map *rodata_map(struct call *c, struct object *object)
{
	struct bpf_map *map;

	if (c->failed)
		return NULL;
	bpf_object__for_each_map(map, object->bpf) {
		const char *dot = strrchr(bpf_map__name(map), '.');

		if (bpf_map__is_internal(map) && dot && strcmp(dot, ".rodata") == 0)
			return map;
	}
	fail_because(c, ENOENT, ".rodata", "the object has no constants");
	return NULL;
}

static napi_value object_rodata(napi_env env, napi_callback_info info)
{
	struct call c = call_begin(env, info, "object_rodata");
	struct object *object = object_begin(&c);
	struct bpf_map *map = object ? rodata_map(&c, object) : NULL;
	const void *value;
	napi_value result;
	size_t size = 0;
	void *copy;

	if (c.failed)
		return NULL;
	value = bpf_map__initial_value(map, &size);
	result = give_bytes(&c, value ? size : 0, &copy);
	if (result && value && size)
		memcpy(copy, value, size);
	return result;
}

static napi_value object_set_rodata(napi_env env, napi_callback_info info)
{
	struct call c = call_begin(env, info, "object_set_rodata");
	struct object *object = object_begin(&c);
	struct bpf_map *map = object ? rodata_map(&c, object) : NULL;
	struct bytes value = arg_bytes(&c, 0, "value");
	int error;

	check_unloaded(&c, object, ".rodata");
	if (!c.failed)
		check_length(&c, ".rodata", "value", value, bpf_map__value_size(map));
	if (c.failed)
		return NULL;
	error = bpf_map__set_initial_value(map, value.data, value.length);
	if (error)
		fail(&c, error, ".rodata");
	return NULL;
}

static napi_value object_set_autoload(napi_env env, napi_callback_info info)
{
	struct call c = call_begin(env, info, "object_set_autoload");
	struct object *object = object_begin(&c);
	char name[NAME_ROOM] = "";
	struct bpf_program *program = object ? arg_program(&c, object, name) : NULL;
	bool load = false;
	int error;

	if (!c.failed && napi_get_value_bool(env, c.args[1], &load) != napi_ok)
		fail_type(&c, "load must be a boolean");
	if (c.failed)
		return NULL;
	error = bpf_program__set_autoload(program, load);
	if (error)
		fail(&c, error, name);
	return NULL;
}

const struct function change_methods[] = {
	{ "setMaxEntries", object_set_max_entries }, { "reuseMap", object_reuse_map },
	{ "rodata", object_rodata },		     { "setRodata", object_set_rodata },
	{ "setAutoload", object_set_autoload },
};
const size_t change_method_count = ARRAY_SIZE(change_methods);
