/* SPDX-License-Identifier: Apache-2.0 */
/* What the process keeps resident. */
#define _GNU_SOURCE
#include "maglane.h"

#include <inttypes.h>
#include <malloc.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

/* One mapping of /proc/self/smaps, as far as it has been read. */
struct mapping {
	uintptr_t start, end;
	bool clean_file; /* of a file, not writable */
	uint64_t resident; /* KiB */
	uint64_t dirty;
};

/*
 * Lets go of a mapping's pages if the file can bring every one of them back: what was written
 * to (relocations, once) would be lost. Returns the KiB that were resident.
 */
static uint64_t release(const struct mapping *m)
{
	if (!m->clean_file || m->dirty > 0 || m->resident == 0)
		return 0;
	if (madvise((void *)m->start, m->end - m->start, MADV_DONTNEED))
		return 0;
	return m->resident;
}

/* What starting took and running does not: free memory of the allocator, and the pages of the program's own files. */
static napi_value release_memory(napi_env env, napi_callback_info info)
{
	struct call c = call_begin(env, info, "release_memory");
	struct mapping m = {0};
	uint64_t released = 0;
	char line[PATH_ROOM + 128];
	FILE *maps;

	if (c.failed)
		return NULL;
	malloc_trim(0);
	maps = fopen("/proc/self/smaps", "re");
	if (!maps)
		return give_number(env, 0);
	while (fgets(line, sizeof(line), maps)) {
		uintptr_t start, end, inode;
		char perms[5];

		if (sscanf(line, "%" SCNxPTR "-%" SCNxPTR " %4s %*x %*s %" SCNuPTR, &start, &end, perms, &inode) == 4) {
			released += release(&m);
			m = (struct mapping){ start, end, .clean_file = inode != 0 && perms[1] == '-' && perms[3] == 'p' };
		}
		sscanf(line, "Rss: %" SCNu64, &m.resident);
		if (strncmp(line, "Private_Dirty:", 14) == 0)
			sscanf(line + 14, "%" SCNu64, &m.dirty);
	}
	released += release(&m);
	fclose(maps);
	return give_number(env, released * 1024);
}

const struct function memory_functions[] = {
	{ "releaseMemory", release_memory },
};
const size_t memory_function_count = ARRAY_SIZE(memory_functions);
