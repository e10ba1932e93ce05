/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* What the agent knows when it loads the programs: constants to the verifier. */
#ifndef MAGLANE_CONFIG_H
#define MAGLANE_CONFIG_H

#include "abi.h"

volatile const struct config config;

#endif
