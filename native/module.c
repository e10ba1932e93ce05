/* SPDX-License-Identifier: Apache-2.0 */
/* What the addon exports. */
#include "maglane.h"

NAPI_MODULE_INIT()
{
	log_start();
	define(env, exports, fd_functions, fd_function_count);
	define(env, exports, map_functions, map_function_count);
	define(env, exports, batch_functions, batch_function_count);
	define(env, exports, link_functions, link_function_count);
	define(env, exports, tc_functions, tc_function_count);
	define(env, exports, program_functions, program_function_count);
	define(env, exports, object_functions, object_function_count);
	define(env, exports, ring_functions, ring_function_count);
	define(env, exports, net_functions, net_function_count);
	define(env, exports, memory_functions, memory_function_count);
	define(env, exports, interface_functions, interface_function_count);
	define(env, exports, nft_functions, nft_function_count);
	define(env, exports, socket_functions, socket_function_count);
	return exports;
}
