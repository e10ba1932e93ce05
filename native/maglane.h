/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the addon's files share: reading arguments, throwing failures, telling file
 * descriptors apart. index.d.ts says what each function does for its caller.
 *
 * A function of the addon reads all its arguments first; the first wrong one throws and
 * marks the call as failed, whatever else is read or thrown then does nothing, and one
 * check of `call.failed` before the system call serves for all.
 */
#ifndef MAGLANE_NATIVE_H
#define MAGLANE_NATIVE_H

#include <linux/inet_diag.h>
#include <linux/netlink.h>
#include <linux/types.h>
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <node_api.h>
#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))
#define PATH_ROOM 4096 /* PATH_MAX */
#define NAME_ROOM 128  /* names of maps and programs inside an object */

struct call {
	napi_env env;
	const char *op; /* "map_update": names the operation in every message */
	napi_value self;
	napi_value args[6]; /* undefined where the caller gave fewer */
	bool failed;
};

struct bytes {
	uint8_t *data;
	size_t length;
};

/* napi.c: arguments and results */
struct call call_begin(napi_env env, napi_callback_info info, const char *op);
bool arg_absent(struct call *c, int i);
uint64_t arg_number(struct call *c, int i, const char *name, uint64_t min, uint64_t max);
int arg_fd(struct call *c, int i);
struct bytes arg_bytes(struct call *c, int i, const char *name);
void arg_text(struct call *c, int i, const char *name, char *text, size_t room);
int arg_choice(struct call *c, int i, const char *name, const char *const *choices, int count);
/* Throws a RangeError unless the bytes are exactly as many as the kernel will touch. */
void check_length(struct call *c, const char *subject, const char *name, struct bytes bytes, uint64_t want);
void fail_type(struct call *c, const char *format, ...) __attribute__((format(printf, 2, 3)));
void fail_range(struct call *c, const char *format, ...) __attribute__((format(printf, 2, 3)));

napi_value give_number(napi_env env, double value);
napi_value give_bool(napi_env env, bool value);
napi_value give_text(napi_env env, const char *text);
/* A new Uint8Array; `*data` is its memory, to be filled by the caller. NULL after throwing. */
napi_value give_bytes(struct call *c, size_t length, void **data);
void set(napi_env env, napi_value object, const char *name, napi_value value);
/* Defines functions on an object, from a table. */
struct function {
	const char *name;
	napi_callback run;
};
void define(napi_env env, napi_value object, const struct function *functions, size_t count);

/* error.c: BpfError, and the log behind it */
struct failure {
	int error;           /* errno, or one of libbpf's own above 4000; the sign does not matter */
	const char *subject; /* NULL: none */
	const char *detail;  /* NULL: what the errno means for this operation */
	bool log;            /* attach the log */
	bool batch;          /* attach `done` */
	uint32_t done;
};
void fail(struct call *c, int error, const char *subject);
void fail_because(struct call *c, int error, const char *subject, const char *detail);
void fail_with(struct call *c, struct failure failure);
/* libbpf's messages go to a log of each thread's own, not to stderr. */
void log_start(void);
/* Before an operation whose failure carries the log. */
void log_clear(void);
/* A copy of this thread's log, for free(), or NULL; and this thread's log as another's was. */
char *log_copy(void);
void log_adopt(const char *text);

/* fd.c */
enum fd_kind { FD_OTHER, FD_CLOSED, FD_MAP, FD_PROGRAM, FD_LINK };
enum fd_kind fd_kind(int fd);
/* Throws unless `fd` is of that kind. */
void check_kind(struct call *c, int fd, enum fd_kind kind);

/* thread.c: a thread that no signal of the process reaches. Returns 0, or an errno. */
int start_thread(pthread_t *thread, void *(*run)(void *data), void *data);

/* job.c: work on a thread of the pool, and a promise for what comes of it */
struct job;
struct job_kind {
	/* On that thread. */
	void (*run)(struct job *job);
	/* On the event loop again: the result, or NULL after throwing. */
	napi_value (*finish)(struct call *c, struct job *job);
	void (*free)(struct job *job);
};
/* At the head of each kind's own struct, zeroed; the rest is job.c's. */
struct job {
	const char *op;
	const struct job_kind *kind;
	napi_ref self; /* keeps what the method was called on */
	napi_deferred deferred;
	napi_async_work work;
};
/* Takes the job over, also when the call has failed. */
napi_value job_start(struct call *c, struct job *job, const struct job_kind *kind);

/* diag.c */
struct socket_id {
	__u32 family; /* AF_INET or AF_INET6 */
	struct inet_diag_sockid id;
};
/* Returns a NETLINK_SOCK_DIAG socket in a network namespace, given by its file ("": the process's own); or a negative errno. */
int diag_open(const char *namespace);
/* 1: its owner hears ECONNABORTED; 0: it is not there any more, or the kernel cannot do it. Or a negative errno. */
int diag_destroy_udp(int sock, const struct socket_id *id);

/* map.c */
bool map_info(struct call *c, int fd, struct bpf_map_info *info);
/* Bytes of one value as the system calls carry it: per-CPU maps hold one for each possible CPU. */
uint64_t map_value_bytes(const struct bpf_map_info *info);
napi_value give_map_info(napi_env env, const struct bpf_map_info *info);

/* object.c: shared by the methods of an object */
struct object {
	struct bpf_object *bpf; /* NULL once closed */
	bool loading;		/* on another thread: not to be touched */
	bool loaded;
};
/* Begins a method: NULL, with an exception, when `this` is no open object. */
struct object *object_begin(struct call *c);
/* The map, or program, that the first argument names; NULL after throwing. */
struct bpf_map *arg_map(struct call *c, struct object *object, char name[NAME_ROOM]);
struct bpf_program *arg_program(struct call *c, struct object *object, char name[NAME_ROOM]);
/* Throws once the object is loaded: libbpf silently lets changes pass that can no longer have an effect. */
void check_unloaded(struct call *c, struct object *object, const char *subject);

/* watch.c: waits for a descriptor in a thread of its own, and has what comes read on the event loop */
struct watch;
struct watch_kind {
	const char *name; /* of the thread: "maglane:ring" */
	/* On the event loop. True: there may be more, and others should have their turn first. */
	bool (*read)(napi_env env, napi_value callback, void *data);
	void (*free)(void *data);
};
/*
 * Watches `fd` until the function that it returns is called; the callback is argument `i`. Does not keep the process
 * alive. `data` is its own from here on, freed also when it throws; `*watch` is set before the first reading.
 */
napi_value watch_start(struct call *c, int i, int fd, const struct watch_kind *kind, void *data, struct watch **watch);
/* False once it is stopped, be it by its own callback. */
bool watch_running(const struct watch *watch);
/* What a callback throws is the process's to handle, like an exception of any other event. */
bool report_exception(napi_env env);

/* netlink.c: errors are returned as -errno */
typedef int (*netlink_each)(const struct nlmsghdr *message, void *data);
/* A dump that changed under its reader begins anew: forget what was read. */
typedef void (*netlink_restart)(void *data);
int netlink_open(int protocol, uint32_t groups);
int netlink_dump(int sock, struct nlmsghdr *request, netlink_each each, netlink_restart restart, void *data);
/* Sends a request and waits for its acknowledgement. */
int netlink_request(int sock, struct nlmsghdr *request);
/* The attributes of a message by type; NULL for those that are not there. */
void netlink_attributes(const void *first, size_t length, const struct nlattr **found, size_t count);
static inline const void *netlink_data(const struct nlattr *attribute)
{
	return (const char *)attribute + NLA_HDRLEN;
}
/* 0 and "" for an attribute that is not there. */
uint32_t netlink_u32(const struct nlattr *attribute);
const char *netlink_text(const struct nlattr *attribute);

/* net.c: "eth0", or "ifindex 7" when there is no such device */
const char *device_name(uint32_t ifindex, char text[32]);

/* Each file's functions, for module.c to export. */
extern const struct function fd_functions[], map_functions[], batch_functions[], link_functions[], tc_functions[],
	program_functions[], object_functions[], change_methods[], ring_functions[], net_functions[], memory_functions[],
	interface_functions[], nft_functions[], socket_functions[];
extern const size_t fd_function_count, map_function_count, batch_function_count, link_function_count,
	tc_function_count, program_function_count, object_function_count, change_method_count,
	ring_function_count, net_function_count, memory_function_count, interface_function_count, nft_function_count,
	socket_function_count;

#endif
