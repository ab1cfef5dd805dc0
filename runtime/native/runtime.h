/* What the runtime's own files know of each other.  Emitted code sees abi.h alone. */
#ifndef FLUXC_RUNTIME_H
#define FLUXC_RUNTIME_H

/* Before any system header, which is why every file here includes this one first. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE 1
#endif

#include <pthread.h>
#include <stdbool.h>

#include "abi.h"

#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "weights files and compiled constants are little-endian"
#endif

enum { FX_ALIGN = 64, FX_MAX_THREADS = 1024 };

/* Scratch memory of one call; kept by the model for the next one. */
typedef struct fx_arena {
    struct fx_arena *next;
    int64_t bytes;
    char *memory;
} fx_arena;

typedef struct fx_pool fx_pool;

typedef struct {
    void **storages; /* addresses of the storages that the entry lists */
    void **prepared;
    uint64_t version; /* of the weights that `prepared` was made from; 0: never made */
} fx_entry;

struct fx_model {
    const fx_model_desc *desc;
    char *block; /* every storage, each aligned to FX_ALIGN */
    int64_t block_bytes;
    void **storages;
    fx_entry *entries;
    uint64_t version;     /* counts changes of the weights, from 1; guarded by `gate` */
    fx_arena *free_arenas; /* guarded by `gate` */

    /* Readers (calls that change nothing) side by side, writers alone and first. */
    pthread_mutex_t gate;
    pthread_cond_t opened;
    int32_t readers, writing, waiting_writers;

    pthread_mutex_t preparing; /* held while some entry's prepare runs */
    fx_pool *pool;
    fx_model *next_open; /* list of all open models, for fork */
};

struct fx_call {
    fx_model *model;
};

/* error.c.  fx_fail records a message for the calling thread and returns `status`. */
#if defined(__GNUC__)
__attribute__((format(printf, 2, 3)))
#endif
int32_t fx_fail(int32_t status, const char *format, ...);

/* model.c */
int64_t fx_itemsize(int32_t dtype);
const char *fx_dtype_name(int32_t dtype);
void *fx_allocate(int64_t bytes); /* aligned to FX_ALIGN; NULL: out of memory */
void fx_release(void *memory);    /* what fx_allocate gave, or NULL */
int32_t fx_find_storage(const fx_model *model, const char *name); /* -1: unknown */
int64_t fx_storage_bytes(const fx_storage_desc *storage);
void fx_fill(const fx_storage_desc *storage, uint64_t seed, void *data);
/* FX_OK, or FX_ERR_VALUE if `data` may not become the value of `storage`. */
int32_t fx_check_values(const fx_storage_desc *storage, const void *data);
/* A copy of all storages lies at the same offsets in a block as in the model's own. */
void *fx_in_block(const fx_model *model, char *block, int32_t storage);

void fx_enter(fx_model *model, bool writing, fx_arena **arena);
void fx_leave(fx_model *model, bool writing, fx_arena *arena);

/* weights.c.  Reads `path` into `block`, which holds the values to keep for what the file may lack.
 * Optimiser state that the file lacks is reset.  On failure `block` is of no use. */
int32_t fx_read_weights(const fx_model *model, const char *path, char *block);
int32_t fx_write_weights(const fx_model *model, const char *path);

/* threads.c */
int32_t fx_available_cores(void);
fx_pool *fx_pool_new(int32_t threads); /* starts no thread yet; NULL: out of memory */
void fx_pool_free(fx_pool *pool);
void fx_pool_forget_threads(fx_pool *pool); /* in the child of a fork: the workers did not come along */

#endif
