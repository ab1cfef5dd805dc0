/* One call of an entry: every argument is checked against the declared types before anything runs. */
#include "runtime.h"

#include <stdlib.h>
#include <string.h>

/* Arguments beyond these live on the heap; entries of this size are rare. */
enum { FEW_ARGUMENTS = 32 };

/* Memory of which emitted code may assume nothing.  A build with FX_POISON, which tests make, fills it with
 * bytes that are NaN in every float format and -1 in every integer's. */
static void leave_undefined(void *memory, int64_t bytes) {
#ifdef FX_POISON
    if (bytes > 0) memset(memory, 0xff, (size_t)bytes);
#else
    (void)memory, (void)bytes;
#endif
}

static int32_t check_symbols(const fx_entry_desc *e, const int64_t *symbols) {
    int32_t i;
    if (symbols == NULL && e->n_symbols > 0) return fx_fail(FX_ERR_ARGUMENT, "%s: the sizes are NULL", e->name);
    for (i = 0; i < e->n_symbols; i++) {
        const fx_symbol_desc *s = &e->symbols[i];
        int64_t value = symbols[i];
        if (value < s->min || value > s->max)
            return fx_fail(FX_ERR_SIZE, "%s: size %s must lie between %lld and %lld, got %lld", e->name,
                           s->name, (long long)s->min, (long long)s->max, (long long)value);
        if (s->multiple_of > 1 && value % s->multiple_of != 0)
            return fx_fail(FX_ERR_SIZE, "%s: size %s must be a multiple of %lld, got %lld", e->name, s->name,
                           (long long)s->multiple_of, (long long)value);
    }
    return FX_OK;
}

/* The first element outside low <= v < high, or -1.  The loop without an exit is a vector loop. */
#define FIRST_OUTSIDE(type)                                                              \
    do {                                                                                 \
        const type *v = data;                                                            \
        int64_t i, outside = 0;                                                          \
        for (i = 0; i < count; i++) outside |= (int64_t)v[i] < low || (int64_t)v[i] >= high; \
        if (!outside) return -1;                                                         \
        for (i = 0; (int64_t)v[i] >= low && (int64_t)v[i] < high; i++) {}                \
        *found = (int64_t)v[i];                                                          \
        return i;                                                                        \
    } while (0)

static int64_t first_outside(int32_t dtype, const void *data, int64_t count, int64_t low, int64_t high,
                             int64_t *found) {
    switch (dtype) {
    case FX_I64:
    case FX_U64: FIRST_OUTSIDE(int64_t); /* above INT64_MAX reads as negative: outside as well */
    case FX_I32: FIRST_OUTSIDE(int32_t);
    case FX_I16: FIRST_OUTSIDE(int16_t);
    case FX_I8: FIRST_OUTSIDE(int8_t);
    case FX_U32: FIRST_OUTSIDE(uint32_t);
    case FX_U16: FIRST_OUTSIDE(uint16_t);
    case FX_U8:
    case FX_BOOL: FIRST_OUTSIDE(uint8_t);
    default: return -1;
    }
}

static int32_t check_values(const fx_entry_desc *e, const fx_arg_desc *a, const void *data, int64_t count) {
    int64_t low = a->index_low, high = a->index_high, found = 0, at;
    bool logical = a->dtype == FX_BOOL;
    if (logical) low = 0, high = 2;
    if (low == high) return FX_OK;
    at = first_outside(a->dtype, data, count, low, high, &found);
    if (at < 0) return FX_OK;
    if (logical)
        return fx_fail(FX_ERR_VALUE, "%s: argument %s: element %lld is %lld, a bool is 0 or 1", e->name,
                       a->name, (long long)at, (long long)found);
    return fx_fail(FX_ERR_VALUE, "%s: argument %s: element %lld is %lld, an index must lie between %lld and %lld",
                   e->name, a->name, (long long)at, (long long)found, (long long)low, (long long)(high - 1));
}

static bool overlap(const void *a, int64_t a_bytes, const void *b, int64_t b_bytes) {
    uintptr_t x = (uintptr_t)a, y = (uintptr_t)b;
    return a_bytes > 0 && b_bytes > 0 && x < y + (uintptr_t)b_bytes && y < x + (uintptr_t)a_bytes;
}

static int32_t check_memory(const fx_model *model, const fx_entry_desc *e, void *const *args,
                            const int64_t *counts) {
    int32_t i, k, n = e->n_inputs + e->n_outputs;
    for (i = 0; i < n; i++) {
        const fx_arg_desc *a = &e->args[i];
        int64_t size = fx_itemsize(a->dtype);
        bool output = i >= e->n_inputs;
        if (counts[i] < 0 || counts[i] > INT64_MAX / size)
            return fx_fail(FX_ERR_SIZE, "%s: argument %s would have more elements than memory can hold",
                           e->name, a->name);
        if (counts[i] == 0) continue;
        if (args[i] == NULL) return fx_fail(FX_ERR_ARGUMENT, "%s: argument %s is NULL", e->name, a->name);
        if ((uintptr_t)args[i] % (uintptr_t)size != 0)
            return fx_fail(FX_ERR_ARGUMENT, "%s: argument %s is not aligned to its %lld-byte elements",
                           e->name, a->name, (long long)size);
        /* The model's own memory may be an input of calls that do not change it. */
        if ((output || e->training) && overlap(args[i], counts[i] * size, model->block, model->block_bytes))
            return fx_fail(FX_ERR_ARGUMENT, "%s: argument %s lies in the model's own parameters; pass a copy",
                           e->name, a->name);
        for (k = 0; output && k < i; k++)
            if (overlap(args[i], counts[i] * size, args[k], counts[k] * fx_itemsize(e->args[k].dtype)))
                return fx_fail(FX_ERR_ARGUMENT, "%s: output %s overlaps argument %s", e->name, a->name,
                               e->args[k].name);
    }
    return FX_OK;
}

static int32_t check_inputs(const fx_entry_desc *e, void *const *args, const int64_t *counts) {
    int32_t i, status = FX_OK;
    for (i = 0; status == FX_OK && i < e->n_inputs; i++)
        status = check_values(e, &e->args[i], args[i], counts[i]);
    return status;
}

/* A build with FX_POISON makes each arena anew, as large as the call has said and no larger. */
static bool fits(const fx_arena *arena, int64_t bytes) {
#ifdef FX_POISON
    return arena->bytes == bytes;
#else
    return arena->bytes >= bytes;
#endif
}

/* Grows `arena`, which may be null, to `bytes`. */
static int32_t size_arena(const fx_entry_desc *e, fx_arena **arena, int64_t bytes) {
    if (*arena == NULL) *arena = calloc(1, sizeof **arena);
    if (*arena != NULL && !fits(*arena, bytes)) {
        fx_release((*arena)->memory);
        (*arena)->memory = fx_allocate(bytes);
        (*arena)->bytes = (*arena)->memory == NULL ? 0 : bytes;
    }
    if (*arena == NULL || !fits(*arena, bytes))
        return fx_fail(FX_ERR_MEMORY, "%s: no memory for %lld bytes of intermediate results", e->name,
                       (long long)bytes);
    return FX_OK;
}

static int32_t prepare(fx_model *model, const fx_entry_desc *e, fx_entry *entry) {
    fx_call call = {model};
    char *arena;
    int32_t i;
    for (i = 0; i < e->n_prepared; i++) {
        if (entry->prepared[i] == NULL) entry->prepared[i] = fx_allocate(e->prepared_bytes[i]);
        if (entry->prepared[i] == NULL) return fx_fail(FX_ERR_MEMORY, "%s: no memory for packed weights", e->name);
        leave_undefined(entry->prepared[i], e->prepared_bytes[i]);
    }
    arena = fx_allocate(e->prepare_arena_bytes);
    if (arena == NULL) return fx_fail(FX_ERR_MEMORY, "%s: no memory to pack the weights", e->name);
    leave_undefined(arena, e->prepare_arena_bytes);
    e->prepare(&call, entry->storages, entry->prepared, arena);
    fx_release(arena);
    return FX_OK;
}

/* The weights cannot change meanwhile: the caller is inside the gate. */
static int32_t bring_up_to_date(fx_model *model, const fx_entry_desc *e, fx_entry *entry) {
    int32_t status = FX_OK;
    if (e->prepare == NULL || __atomic_load_n(&entry->version, __ATOMIC_ACQUIRE) == model->version)
        return FX_OK;
    pthread_mutex_lock(&model->preparing);
    if (entry->version != model->version) {
        status = prepare(model, e, entry);
        if (status == FX_OK) __atomic_store_n(&entry->version, model->version, __ATOMIC_RELEASE);
    }
    pthread_mutex_unlock(&model->preparing);
    return status;
}

static int32_t run_checked(fx_model *model, int32_t index, const int64_t *symbols, void *const *args) {
    const fx_entry_desc *e = &model->desc->entries[index];
    fx_entry *entry = &model->entries[index];
    fx_call call = {model};
    fx_arena *arena = NULL;
    int64_t bytes = e->arena_bytes == NULL ? 0 : e->arena_bytes(symbols);
    int32_t status;
    if (bytes < 0)
        return fx_fail(FX_ERR_SIZE, "%s: these sizes need more memory than can be addressed", e->name);
    fx_enter(model, e->training != 0, &arena);
    status = size_arena(e, &arena, bytes);
    if (status == FX_OK) status = bring_up_to_date(model, e, entry);
    if (status == FX_OK) {
        leave_undefined(arena->memory, bytes);
        e->run(&call, symbols, args, entry->storages, entry->prepared, arena->memory);
    }
    fx_leave(model, e->training != 0, arena);
    return status;
}

int32_t fx_run(fx_model *model, int32_t index, const int64_t *symbols, void *const *args) {
    const fx_entry_desc *e;
    int64_t few[FEW_ARGUMENTS], *counts = few;
    int32_t status, n;
    if (model == NULL) return fx_fail(FX_ERR_ARGUMENT, "the model is NULL");
    if (index < 0 || index >= model->desc->n_entries)
        return fx_fail(FX_ERR_ARGUMENT, "%s has no entry number %d", model->desc->name, (int)index);
    e = &model->desc->entries[index];
    n = e->n_inputs + e->n_outputs;
    status = check_symbols(e, symbols);
    if (status != FX_OK) return status;
    if (n > FEW_ARGUMENTS) counts = malloc((size_t)n * sizeof *counts);
    if (counts == NULL) return fx_fail(FX_ERR_MEMORY, "%s: out of memory", e->name);
    e->arg_counts(symbols, counts);
    status = check_memory(model, e, args, counts);
    if (status == FX_OK) status = check_inputs(e, args, counts);
    if (counts != few) free(counts);
    return status == FX_OK ? run_checked(model, index, symbols, args) : status;
}
