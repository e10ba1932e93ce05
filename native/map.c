/* SPDX-License-Identifier: Apache-2.0 */
/* Maps: one entry at a time, and as memory. Sizes are asked of the kernel each time: descriptors are reused. */
#include "maglane.h"

#include <errno.h>
#include <linux/bpf.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

bool map_info(struct call *c, int fd, struct bpf_map_info *info)
{
	__u32 length = sizeof(*info);
	int error;

	if (c->failed)
		return false;
	memset(info, 0, sizeof(*info));
	if (bpf_obj_get_info_by_fd(fd, info, &length) == 0) {
		info->name[sizeof(info->name) - 1] = '\0'; /* it may be no map: see check_entry */
		return true;
	}
	error = errno;
	check_kind(c, fd, FD_MAP); /* says more than the kernel's EBADFD or EINVAL */
	fail(c, error, "");
	return false;
}

uint64_t map_value_bytes(const struct bpf_map_info *info)
{
	switch (info->type) {
	case BPF_MAP_TYPE_PERCPU_HASH:
	case BPF_MAP_TYPE_PERCPU_ARRAY:
	case BPF_MAP_TYPE_LRU_PERCPU_HASH:
	case BPF_MAP_TYPE_PERCPU_CGROUP_STORAGE:
		return (((uint64_t)info->value_size + 7) & ~7ull) * libbpf_num_possible_cpus();
	default:
		return info->value_size;
	}
}

napi_value give_map_info(napi_env env, const struct bpf_map_info *info)
{
	napi_value result;

	if (napi_create_object(env, &result) != napi_ok)
		return NULL;
	set(env, result, "id", give_number(env, info->id));
	set(env, result, "name", give_text(env, info->name));
	set(env, result, "type", give_number(env, info->type));
	set(env, result, "keySize", give_number(env, info->key_size));
	set(env, result, "valueSize", give_number(env, info->value_size));
	set(env, result, "maxEntries", give_number(env, info->max_entries));
	set(env, result, "flags", give_number(env, info->map_flags));
	return result;
}

static napi_value map_info_of(napi_env env, napi_callback_info info)
{
	struct call c = call_begin(env, info, "map_info");
	struct bpf_map_info map;
	int fd = arg_fd(&c, 0);

	check_kind(&c, fd, FD_MAP);
	return map_info(&c, fd, &map) ? give_map_info(env, &map) : NULL;
}

/* A map with a key and, where `value_arg` is not 0, a value: read and checked. */
struct entry {
	int fd;
	struct bpf_map_info map;
	struct bytes key, value;
};

/*
 * Every BPF object answers the question for its sizes, each in its own layout, so a program
 * in a map's place has nonsense for sizes. Telling them apart costs more than the operation:
 * it is done when the lengths differ. Where they agree by chance the kernel refuses.
 */
static void check_entry(struct call *c, struct entry *entry, bool with_key, const char *value_name, uint64_t value_bytes)
{
	if (c->failed)
		return;
	if ((with_key && entry->key.length != entry->map.key_size) ||
	    (value_name && entry->value.length != value_bytes))
		check_kind(c, entry->fd, FD_MAP);
	if (with_key)
		check_length(c, entry->map.name, "key", entry->key, entry->map.key_size);
	if (value_name)
		check_length(c, entry->map.name, value_name, entry->value, value_bytes);
}

static napi_value map_lookup(napi_env env, napi_callback_info info)
{
	struct call c = call_begin(env, info, "map_lookup");
	struct entry e = { .fd = arg_fd(&c, 0), .key = arg_bytes(&c, 1, "key"), .value = arg_bytes(&c, 2, "value") };

	if (map_info(&c, e.fd, &e.map))
		check_entry(&c, &e, true, "value", map_value_bytes(&e.map));
	if (c.failed)
		return NULL;
	if (bpf_map_lookup_elem(e.fd, e.key.data, e.value.data) == 0)
		return give_bool(env, true);
	if (errno == ENOENT)
		return give_bool(env, false);
	fail(&c, errno, e.map.name);
	return NULL;
}

static napi_value map_update(napi_env env, napi_callback_info info)
{
	struct call c = call_begin(env, info, "map_update");
	struct entry e = { .fd = arg_fd(&c, 0), .key = arg_bytes(&c, 1, "key"), .value = arg_bytes(&c, 2, "value") };
	uint64_t flags = arg_absent(&c, 3) ? BPF_ANY : arg_number(&c, 3, "flags", BPF_ANY, BPF_EXIST);

	if (map_info(&c, e.fd, &e.map))
		check_entry(&c, &e, true, "value", map_value_bytes(&e.map));
	if (!c.failed && bpf_map_update_elem(e.fd, e.key.data, e.value.data, flags) != 0)
		fail(&c, errno, e.map.name);
	return NULL;
}

static napi_value map_delete(napi_env env, napi_callback_info info)
{
	struct call c = call_begin(env, info, "map_delete");
	struct entry e = { .fd = arg_fd(&c, 0), .key = arg_bytes(&c, 1, "key") };

	if (map_info(&c, e.fd, &e.map))
		check_entry(&c, &e, true, NULL, 0);
	if (c.failed)
		return NULL;
	if (bpf_map_delete_elem(e.fd, e.key.data) == 0)
		return give_bool(env, true);
	if (errno == ENOENT)
		return give_bool(env, false);
	fail(&c, errno, e.map.name);
	return NULL;
}

static napi_value map_next_key(napi_env env, napi_callback_info info)
{
	struct call c = call_begin(env, info, "map_next_key");
	bool first = arg_absent(&c, 1);
	struct entry e = { .fd = arg_fd(&c, 0) };

	if (!first)
		e.key = arg_bytes(&c, 1, "key");
	e.value = arg_bytes(&c, 2, "next");
	if (map_info(&c, e.fd, &e.map))
		check_entry(&c, &e, !first, "next", e.map.key_size);
	if (c.failed)
		return NULL;
	if (bpf_map_get_next_key(e.fd, first ? NULL : e.key.data, e.value.data) == 0)
		return give_bool(env, true);
	if (errno == ENOENT)
		return give_bool(env, false);
	fail(&c, errno, e.map.name);
	return NULL;
}

static void unmap(napi_env env, void *data, void *size)
{
	(void)env;
	munmap(data, (size_t)size);
}

static napi_value map_mmap(napi_env env, napi_callback_info info)
{
	struct call c = call_begin(env, info, "map_mmap");
	struct bpf_map_info map;
	int fd = arg_fd(&c, 0);
	napi_value buffer;
	uint64_t page, size, offset, length;
	void *data;

	check_kind(&c, fd, FD_MAP);
	if (!map_info(&c, fd, &map))
		return NULL;
	/* Ring buffers can be mapped too, but not as one writable array. */
	if (map.type != BPF_MAP_TYPE_ARRAY || !(map.map_flags & BPF_F_MMAPABLE)) {
		fail_because(&c, EINVAL, map.name, "not an array with BPF_F_MMAPABLE");
		return NULL;
	}
	page = sysconf(_SC_PAGESIZE);
	size = (((uint64_t)map.value_size + 7) & ~7ull) * map.max_entries;
	size = (size + page - 1) & ~(page - 1);
	offset = arg_absent(&c, 1) ? 0 : arg_number(&c, 1, "offset", 0, size - 1);
	length = arg_absent(&c, 2) ? size - offset : arg_number(&c, 2, "length", 1, size - offset);
	if (!c.failed && offset % page)
		fail_range(&c, "offset must be a multiple of %llu, not %llu", (unsigned long long)page,
			   (unsigned long long)offset);
	if (c.failed)
		return NULL;
	size = (length + page - 1) & ~(page - 1);
	data = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, (off_t)offset);
	if (data == MAP_FAILED) {
		fail(&c, errno, map.name);
		return NULL;
	}
	if (napi_create_external_arraybuffer(env, data, size, unmap, (void *)size, &buffer) != napi_ok) {
		munmap(data, size);
		fail_because(&c, ENOMEM, map.name, "this Node takes no memory from outside");
		return NULL;
	}
	return buffer;
}

const struct function map_functions[] = {
	{ "mapInfo", map_info_of },  { "mapLookup", map_lookup },    { "mapUpdate", map_update },
	{ "mapDelete", map_delete }, { "mapNextKey", map_next_key }, { "mapMmap", map_mmap },
};
const size_t map_function_count = ARRAY_SIZE(map_functions);
