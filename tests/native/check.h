/* Assertions of the native tests: they stay in with NDEBUG, and say where. */
#ifndef CHECK_H
#define CHECK_H

#include <stdio.h>
#include <stdlib.h>

#define CHECK(condition)                                                                    \
    do {                                                                                    \
        if (!(condition)) {                                                                 \
            fprintf(stderr, "%s:%d: %s\n  error: %s\n", __FILE__, __LINE__, #condition, fx_error()); \
            exit(1);                                                                        \
        }                                                                                   \
    } while (0)

#endif
