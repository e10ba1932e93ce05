/* SPDX-License-Identifier: Apache-2.0 */
/* BPF objects: opened from a file, loaded, closed. What can be changed in between is in change.c. */
#include "maglane.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

/* Tells our objects from anything else a method is called on. */
static const napi_type_tag object_tag = { 0x6d61676c616e6531ull, 0x6270665f6f626a31ull };

struct object *object_begin(struct call *c)
{
	struct object *object = NULL;
	bool ours = false;

	if (c->failed)
		return NULL;
	if (napi_check_object_type_tag(c->env, c->self, &object_tag, &ours) != napi_ok || !ours ||
	    napi_unwrap(c->env, c->self, (void **)&object) != napi_ok)
		fail_type(c, "called on something that is no BpfObject");
	else if (!object->bpf)
		fail_type(c, "the object is closed");
	else if (object->loading)
		fail_because(c, EBUSY, "", "the object is being loaded");
	return c->failed ? NULL : object;
}

struct bpf_map *arg_map(struct call *c, struct object *object, char name[NAME_ROOM])
{
	struct bpf_map *map;

	arg_text(c, 0, "map", name, NAME_ROOM);
	if (c->failed)
		return NULL;
	map = bpf_object__find_map_by_name(object->bpf, name);
	if (!map)
		fail_because(c, ENOENT, name, "the object has no such map");
	return map;
}

struct bpf_program *arg_program(struct call *c, struct object *object, char name[NAME_ROOM])
{
	struct bpf_program *program;

	arg_text(c, 0, "program", name, NAME_ROOM);
	if (c->failed)
		return NULL;
	program = bpf_object__find_program_by_name(object->bpf, name);
	if (!program)
		fail_because(c, ENOENT, name, "the object has no such program");
	return program;
}

void check_unloaded(struct call *c, struct object *object, const char *subject)
{
	if (!c->failed && object->loaded)
		fail_because(c, EBUSY, subject, "the object is loaded");
}

static napi_value object_maps(napi_env env, napi_callback_info info)
{
	struct call c = call_begin(env, info, "object_maps");
	struct object *object = object_begin(&c);
	struct bpf_map *map;
	napi_value names;
	uint32_t count = 0;

	if (!object || napi_create_array(env, &names) != napi_ok)
		return NULL;
	bpf_object__for_each_map(map, object->bpf)
		napi_set_element(env, names, count++, give_text(env, bpf_map__name(map)));
	return names;
}

static napi_value object_programs(napi_env env, napi_callback_info info)
{
	struct call c = call_begin(env, info, "object_programs");
	struct object *object = object_begin(&c);
	struct bpf_program *program;
	napi_value names;
	uint32_t count = 0;

	if (!object || napi_create_array(env, &names) != napi_ok)
		return NULL;
	bpf_object__for_each_program(program, object->bpf)
		napi_set_element(env, names, count++, give_text(env, bpf_program__name(program)));
	return names;
}

static napi_value object_map_info(napi_env env, napi_callback_info info)
{
	struct call c = call_begin(env, info, "object_map_info");
	struct object *object = object_begin(&c);
	char name[NAME_ROOM] = "";
	struct bpf_map *map = object ? arg_map(&c, object, name) : NULL;
	struct bpf_map_info declared = { 0 };

	if (c.failed)
		return NULL;
	if (object->loaded)
		return map_info(&c, bpf_map__fd(map), &declared) ? give_map_info(env, &declared) : NULL;
	snprintf(declared.name, sizeof(declared.name), "%.15s", name); /* as the kernel will */
	declared.type = bpf_map__type(map);
	declared.key_size = bpf_map__key_size(map);
	declared.value_size = bpf_map__value_size(map);
	declared.max_entries = bpf_map__max_entries(map);
	declared.map_flags = bpf_map__map_flags(map);
	return give_map_info(env, &declared);
}

static napi_value object_load(napi_env env, napi_callback_info info)
{
	struct call c = call_begin(env, info, "object_load");
	struct object *object = object_begin(&c);
	int error;

	check_unloaded(&c, object, "");
	if (c.failed)
		return NULL;
	log_clear();
	error = bpf_object__load(object->bpf);
	if (error)
		fail_with(&c, (struct failure){ .error = error, .subject = bpf_object__name(object->bpf), .log = true });
	else
		object->loaded = true;
	return NULL;
}

struct load_job {
	struct job job;
	struct object *object;
	int error;
	char *log; /* that thread's, of a failure */
};

static void run_load(struct job *base)
{
	struct load_job *job = (struct load_job *)base;

	log_clear();
	job->error = bpf_object__load(job->object->bpf);
	if (job->error)
		job->log = log_copy();
}

static napi_value finish_load(struct call *c, struct job *base)
{
	const struct load_job *job = (struct load_job *)base;
	napi_value undefined = NULL;

	job->object->loading = false;
	job->object->loaded = !job->error;
	napi_get_undefined(c->env, &undefined);
	if (!job->error)
		return undefined;
	log_adopt(job->log ? job->log : "");
	fail_with(c, (struct failure){ .error = job->error, .subject = bpf_object__name(job->object->bpf), .log = true });
	return NULL;
}

static void free_load(struct job *base)
{
	struct load_job *job = (struct load_job *)base;

	job->object->loading = false;
	free(job->log);
	free(job);
}

static const struct job_kind loading = { run_load, finish_load, free_load };

static napi_value object_load_async(napi_env env, napi_callback_info info)
{
	struct call c = call_begin(env, info, "object_load");
	struct object *object = object_begin(&c);
	struct load_job *job;

	check_unloaded(&c, object, "");
	if (c.failed)
		return NULL;
	job = calloc(1, sizeof(*job));
	if (!job) {
		fail(&c, ENOMEM, "");
		return NULL;
	}
	job->object = object;
	object->loading = true;
	return job_start(&c, &job->job, &loading);
}

static napi_value object_map_fd(napi_env env, napi_callback_info info)
{
	struct call c = call_begin(env, info, "object_map_fd");
	struct object *object = object_begin(&c);
	char name[NAME_ROOM] = "";
	struct bpf_map *map = object ? arg_map(&c, object, name) : NULL;

	if (c.failed)
		return NULL;
	if (bpf_map__fd(map) >= 0)
		return give_number(env, bpf_map__fd(map));
	fail_because(&c, EBADF, name, "the map is not loaded");
	return NULL;
}

static napi_value object_program_fd(napi_env env, napi_callback_info info)
{
	struct call c = call_begin(env, info, "object_program_fd");
	struct object *object = object_begin(&c);
	char name[NAME_ROOM] = "";
	struct bpf_program *program = object ? arg_program(&c, object, name) : NULL;

	if (c.failed)
		return NULL;
	if (bpf_program__fd(program) >= 0)
		return give_number(env, bpf_program__fd(program));
	fail_because(&c, EBADF, name, "the program is not loaded");
	return NULL;
}

static napi_value object_close(napi_env env, napi_callback_info info)
{
	struct call c = call_begin(env, info, "object_close");
	struct object *object = object_begin(&c);

	if (object) {
		bpf_object__close(object->bpf);
		object->bpf = NULL;
	}
	return NULL;
}

static const struct function methods[] = {
	{ "maps", object_maps },	    { "programs", object_programs }, { "mapInfo", object_map_info },
	{ "load", object_load },	    { "mapFd", object_map_fd },	     { "close", object_close },
	{ "programFd", object_program_fd }, { "loadAsync", object_load_async },
};

/*
 * Collecting a forgotten object does not close it: its descriptors are plain numbers that may
 * be in use elsewhere, and would turn into other things under their user's hands.
 */
static void object_collect(napi_env env, void *data, void *hint)
{
	(void)env;
	(void)hint;
	free(data);
}

static napi_value object_open(napi_env env, napi_callback_info info)
{
	struct call c = call_begin(env, info, "object_open");
	char path[PATH_ROOM];
	struct bpf_object *bpf;
	struct object *object;
	napi_value result;

	arg_text(&c, 0, "path", path, sizeof(path));
	if (c.failed)
		return NULL;
	log_clear();
	bpf = bpf_object__open_file(path, NULL);
	if (!bpf) {
		fail_with(&c, (struct failure){ .error = errno, .subject = path, .log = true });
		return NULL;
	}
	object = calloc(1, sizeof(*object));
	if (!object || napi_create_object(env, &result) != napi_ok ||
	    napi_type_tag_object(env, result, &object_tag) != napi_ok ||
	    napi_wrap(env, result, object, object_collect, NULL, NULL) != napi_ok) {
		bpf_object__close(bpf);
		free(object);
		fail(&c, ENOMEM, path);
		return NULL;
	}
	object->bpf = bpf;
	define(env, result, methods, ARRAY_SIZE(methods));
	define(env, result, change_methods, change_method_count);
	return result;
}

const struct function object_functions[] = { { "open", object_open } };
const size_t object_function_count = ARRAY_SIZE(object_functions);
