/* What emitted code and the runtime know of each other.
 *
 * The compiler emits one constant `fx_model_desc` per artifact and, per entry, the functions that it
 * names; the runtime owns everything else.  Layouts here are mirrored in
 * compiler/backends/llvm/program.py: change both together.
 */
#ifndef FLUXC_ABI_H
#define FLUXC_ABI_H

#include <stddef.h>
#include <stdint.h>

typedef struct fx_model fx_model; /* one opened model: storages, prepared tensors, thread pool */
typedef struct fx_call fx_call;   /* one running call: its model, arena and threads */

enum fx_dtype { FX_F64, FX_F32, FX_F16, FX_BF16, FX_I64, FX_I32, FX_I16, FX_I8, FX_U64, FX_U32, FX_U16, FX_U8, FX_BOOL };

enum fx_kind { FX_PARAMETER, FX_STATE, FX_OPTIMIZER, FX_HYPER, FX_SEED, FX_STEP };

/* Error codes of every public function.  0 is success; fx_error() then says nothing new. */
enum fx_status {
    FX_OK = 0,
    FX_ERR_ARGUMENT = 1, /* a null pointer, an unknown name */
    FX_ERR_SIZE = 2,     /* a size outside its declared range */
    FX_ERR_VALUE = 3,    /* an index outside the tensor that it indexes, a NaN where none may be */
    FX_ERR_MEMORY = 4,   /* out of memory */
    FX_ERR_FILE = 5,     /* a weights file that is missing, truncated, altered or hostile */
    FX_ERR_STATE = 6     /* the model is in use in a way that excludes this call */
};

typedef struct {
    const char *name;
    int32_t dtype, kind, rank, trainable;
    const int64_t *shape;
    int64_t count;  /* elements */
    double fill;    /* initial value of what the weights file does not hold */
    int32_t in_file; /* the artifact's own weights file must hold it */
    int32_t padding;
} fx_storage_desc;

typedef struct {
    const char *name;
    int64_t min, max, multiple_of;
} fx_symbol_desc;

typedef struct {
    const char *name;
    int32_t dtype, rank;
    int64_t index_low, index_high; /* values must lie in low <= v < high; no check where low == high */
} fx_arg_desc;

/* The parallel part of a kernel: points lo <= i < hi of its parallel space.  `buffers` are the kernel's
 * arrays in order, `sizes` its run-time sizes in order. */
typedef void fx_kernel(void *const *buffers, const int64_t *sizes, int64_t lo, int64_t hi);

/* One entry.
 * training: it writes storages.  Such a call runs alone on its model and makes prepared tensors stale;
 * calls of other entries run side by side.
 * prepare may be null where n_prepared is 0; run's arena is aligned to 64 bytes and not cleared. */
typedef struct {
    const char *name;
    int32_t n_symbols, n_inputs, n_outputs, n_prepared, n_storages, training;
    const fx_symbol_desc *symbols;
    const fx_arg_desc *args;      /* inputs, then outputs */
    const int32_t *storages;      /* indices into the model's storages: what this entry reads or writes */
    const int64_t *prepared_bytes;
    int64_t prepare_arena_bytes;
    /* Elements of each argument (inputs, then outputs) for given symbol values; negative where the
     * product does not fit in an int64_t.  Called only with symbols inside their declared ranges. */
    void (*arg_counts)(const int64_t *symbols, int64_t *counts);
    /* Bytes of arena that a run needs; negative where they do not fit in an int64_t. */
    int64_t (*arena_bytes)(const int64_t *symbols);
    /* args: inputs, then outputs.  storages: as listed above.  prepared: n_prepared arrays. */
    void (*prepare)(fx_call *call, void *const *storages, void *const *prepared, char *arena);
    void (*run)(fx_call *call, const int64_t *symbols, void *const *args, void *const *storages,
                void *const *prepared, char *arena);
} fx_entry_desc;

typedef struct {
    const char *name;    /* the artifact's name, the prefix of its public functions */
    const char *version; /* of the compiler */
    int32_t n_storages, n_entries;
    const fx_storage_desc *storages;
    const fx_entry_desc *entries;
} fx_model_desc;

/* What emitted code calls.
 *
 * fx_parallel runs kernel on [0, count) in pieces whose bounds are multiples of `grain` (the last piece may
 * be shorter), on as many threads as are worth waking; grain 0 or count <= grain runs it in place. */
void fx_parallel(fx_call *call, fx_kernel *kernel, void *const *buffers, const int64_t *sizes, int64_t count,
                 int64_t grain);

typedef struct {
    fx_kernel *kernel;
    void *const *buffers;
    const int64_t *sizes;
    int64_t count, grain;
} fx_launch;

/* Launches that are independent of one another, in one parallel region. */
void fx_parallel_batch(fx_call *call, const fx_launch *launches, int32_t n);

/* What the emitted public functions call; `desc` is the artifact's. */
fx_model *fx_open(const fx_model_desc *desc, const char *weights, uint64_t seed, int32_t threads);
void fx_close(fx_model *model);
int32_t fx_run(fx_model *model, int32_t entry, const int64_t *symbols, void *const *args);
int32_t fx_save(fx_model *model, const char *path);
int32_t fx_load(fx_model *model, const char *path);
/* Address of a storage's live data, or NULL for an unknown name. */
const void *fx_storage(fx_model *model, const char *name);
/* Replaces a storage's data: count elements of its dtype. */
int32_t fx_set(fx_model *model, const char *name, const void *data, int64_t count);
/* The last failure of the calling thread, in words. */
const char *fx_error(void);

#endif
