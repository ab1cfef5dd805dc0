/* A model: its storages, the tensors prepared from them, and who may use it when. */
#include "runtime.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

/* ---- dtypes and values ---- */

static const struct {
    const char *name;
    int64_t size;
} DTYPES[] = {{"f64", 8}, {"f32", 4}, {"f16", 2}, {"bf16", 2}, {"i64", 8}, {"i32", 4}, {"i16", 2},
              {"i8", 1},  {"u64", 8}, {"u32", 4}, {"u16", 2},  {"u8", 1},  {"bool", 1}};

int64_t fx_itemsize(int32_t dtype) { return DTYPES[dtype].size; }
const char *fx_dtype_name(int32_t dtype) { return DTYPES[dtype].name; }
int64_t fx_storage_bytes(const fx_storage_desc *s) { return s->count * fx_itemsize(s->dtype); }

static uint16_t half_from_float(float value) {
    uint32_t bits, sign, mantissa, shift, half, rest;
    int32_t exponent;
    memcpy(&bits, &value, 4);
    sign = bits >> 16 & 0x8000u;
    exponent = (int32_t)(bits >> 23 & 0xff) - 127;
    mantissa = bits & 0x7fffffu;
    if (exponent == 128) return (uint16_t)(sign | 0x7c00u | (mantissa ? 0x200u : 0));
    if (exponent > 15) return (uint16_t)(sign | 0x7c00u);
    if (exponent < -25) return (uint16_t)sign;
    mantissa |= 0x800000u;
    shift = exponent < -14 ? (uint32_t)(-exponent - 1) : 13u;
    half = mantissa >> shift;
    rest = mantissa & ((1u << shift) - 1u);
    /* Round to nearest even; a carry out of the mantissa raises the exponent as it should. */
    if (rest > 1u << (shift - 1) || (rest == 1u << (shift - 1) && (half & 1u))) half++;
    if (exponent >= -14) half += (uint32_t)(exponent + 14) << 10;
    return (uint16_t)(sign | half);
}

static uint16_t bfloat_from_float(float value) {
    uint32_t bits;
    memcpy(&bits, &value, 4);
    if (value != value) return (uint16_t)(bits >> 16 | 0x40u);
    return (uint16_t)((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
}

static void element_from_double(int32_t dtype, double value, char *out) {
    switch (dtype) {
    case FX_F64: memcpy(out, &value, 8); break;
    case FX_F32: { float v = (float)value; memcpy(out, &v, 4); break; }
    case FX_F16: { uint16_t v = half_from_float((float)value); memcpy(out, &v, 2); break; }
    case FX_BF16: { uint16_t v = bfloat_from_float((float)value); memcpy(out, &v, 2); break; }
    case FX_U64: { uint64_t v = (uint64_t)value; memcpy(out, &v, 8); break; }
    case FX_BOOL: out[0] = value != 0; break;
    default: { /* little-endian: the low bytes are the narrower integer */
        int64_t v = (int64_t)value;
        memcpy(out, &v, (size_t)fx_itemsize(dtype));
    }
    }
}

void fx_fill(const fx_storage_desc *s, uint64_t seed, void *data) {
    char element[8] = {0};
    int64_t size = fx_itemsize(s->dtype), i;
    if (s->kind == FX_SEED) {
        memcpy(element, &seed, 8);
    } else {
        element_from_double(s->dtype, s->fill, element);
    }
    for (i = 0; i < s->count; i++) memcpy((char *)data + i * size, element, (size_t)size);
}

static bool element_is_finite(int32_t dtype, const char *at) {
    uint64_t bits = 0;
    memcpy(&bits, at, (size_t)fx_itemsize(dtype));
    switch (dtype) {
    case FX_F64: return (bits >> 52 & 0x7ff) != 0x7ff;
    case FX_F32: return (bits >> 23 & 0xff) != 0xff;
    case FX_F16: return (bits >> 10 & 0x1f) != 0x1f;
    case FX_BF16: return (bits >> 7 & 0xff) != 0xff;
    default: return true;
    }
}

int32_t fx_check_values(const fx_storage_desc *s, const void *data) {
    const char *at = data;
    int64_t size = fx_itemsize(s->dtype), i;
    bool finite = s->dtype <= FX_BF16 && (s->kind == FX_PARAMETER || s->kind == FX_HYPER);
    if (s->dtype == FX_BOOL) {
        for (i = 0; i < s->count; i++)
            if ((unsigned char)at[i] > 1)
                return fx_fail(FX_ERR_VALUE, "%s: element %lld is %d, a bool is 0 or 1", s->name,
                               (long long)i, (unsigned char)at[i]);
    }
    for (i = 0; finite && i < s->count; i++)
        if (!element_is_finite(s->dtype, at + i * size))
            return fx_fail(FX_ERR_VALUE, "%s: element %lld is not a finite number", s->name, (long long)i);
    return FX_OK;
}

/* ---- memory ---- */

static int64_t aligned(int64_t bytes) { return (bytes + FX_ALIGN - 1) / FX_ALIGN * FX_ALIGN; }

#ifdef FX_POISON
/* The build that tests make: blocks lie between pages that nobody may touch, against the upper one, and
 * the first page of the mapping says how long it is. */
static const int64_t PAGE = 4096;

void *fx_allocate(int64_t bytes) {
    int64_t pages = bytes < 0 ? 0 : (aligned(bytes) + PAGE - 1) / PAGE, length = (pages + 3) * PAGE;
    char *base, *data;
    if (bytes < 0 || bytes > INT64_MAX / 2) return NULL;
    base = mmap(NULL, (size_t)length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (base == MAP_FAILED) return NULL;
    data = base + 2 * PAGE;
    memcpy(base, &length, sizeof length);
    mprotect(base + PAGE, (size_t)PAGE, PROT_NONE);
    mprotect(data + pages * PAGE, (size_t)PAGE, PROT_NONE);
    memset(data, 0xff, (size_t)(pages * PAGE));
    return data + pages * PAGE - aligned(bytes);
}

void fx_release(void *memory) {
    uintptr_t at = (uintptr_t)memory;
    char *base;
    int64_t length;
    if (memory == NULL) return;
    base = (char *)(at - at % (uintptr_t)PAGE) - 2 * PAGE;
    memcpy(&length, base, sizeof length);
    munmap(base, (size_t)length);
}
#else
void *fx_allocate(int64_t bytes) {
    /* Large blocks on large pages: a model's weights are streamed, and page walks cost bandwidth. */
    const int64_t large = (int64_t)2 << 20;
    size_t align = bytes >= 2 * large ? (size_t)large : (size_t)FX_ALIGN;
    void *memory = NULL;
    if (bytes < 0 || posix_memalign(&memory, align, bytes > 0 ? (size_t)bytes : 1u) != 0) return NULL;
#ifdef MADV_HUGEPAGE
    if (bytes >= 2 * large) madvise(memory, (size_t)bytes, MADV_HUGEPAGE);
#endif
    return memory;
}

void fx_release(void *memory) { free(memory); }
#endif

void *fx_in_block(const fx_model *model, char *block, int32_t storage) {
    return block + ((char *)model->storages[storage] - model->block);
}

int32_t fx_find_storage(const fx_model *model, const char *name) {
    int32_t i;
    for (i = 0; i < model->desc->n_storages; i++)
        if (strcmp(model->desc->storages[i].name, name) == 0) return i;
    return -1;
}

static bool place_storages(fx_model *model) {
    const fx_model_desc *desc = model->desc;
    int64_t offset = 0;
    int32_t i;
    for (i = 0; i < desc->n_storages; i++) {
        if (desc->storages[i].count > INT64_MAX / 16 - offset) return false;
        offset += aligned(fx_storage_bytes(&desc->storages[i]));
    }
    model->block_bytes = offset;
    model->block = fx_allocate(offset);
    model->storages = calloc((size_t)desc->n_storages + 1, sizeof(void *));
    if (model->block == NULL || model->storages == NULL) return false;
    for (i = 0, offset = 0; i < desc->n_storages; i++) {
        model->storages[i] = model->block + offset;
        offset += aligned(fx_storage_bytes(&desc->storages[i]));
    }
    return true;
}

static bool place_entries(fx_model *model) {
    const fx_model_desc *desc = model->desc;
    int32_t i, k;
    model->entries = calloc((size_t)desc->n_entries + 1, sizeof(fx_entry));
    if (model->entries == NULL) return false;
    for (i = 0; i < desc->n_entries; i++) {
        const fx_entry_desc *e = &desc->entries[i];
        fx_entry *entry = &model->entries[i];
        entry->storages = calloc((size_t)e->n_storages + 1, sizeof(void *));
        entry->prepared = calloc((size_t)e->n_prepared + 1, sizeof(void *));
        if (entry->storages == NULL || entry->prepared == NULL) return false;
        for (k = 0; k < e->n_storages; k++) entry->storages[k] = model->storages[e->storages[k]];
    }
    return true;
}

static void release(fx_model *model) {
    int32_t i, k;
    fx_arena *arena = model->free_arenas;
    while (arena != NULL) {
        fx_arena *next = arena->next;
        fx_release(arena->memory);
        free(arena);
        arena = next;
    }
    for (i = 0; model->entries != NULL && i < model->desc->n_entries; i++) {
        fx_entry *entry = &model->entries[i];
        for (k = 0; entry->prepared != NULL && k < model->desc->entries[i].n_prepared; k++)
            fx_release(entry->prepared[k]);
        free(entry->prepared);
        free(entry->storages);
    }
    free(model->entries);
    free(model->storages);
    fx_release(model->block);
    if (model->pool != NULL) fx_pool_free(model->pool);
    pthread_mutex_destroy(&model->gate);
    pthread_mutex_destroy(&model->preparing);
    pthread_cond_destroy(&model->opened);
    free(model);
}

/* ---- fork: every open model is brought to rest before it, and made whole in the child ---- */

static pthread_mutex_t open_lock = PTHREAD_MUTEX_INITIALIZER;
static fx_model *open_models;
static pthread_once_t fork_once = PTHREAD_ONCE_INIT;

static void before_fork(void) {
    fx_model *m;
    pthread_mutex_lock(&open_lock);
    for (m = open_models; m != NULL; m = m->next_open) {
        pthread_mutex_lock(&m->gate);
        m->waiting_writers++; /* lets no new call in */
        while (m->readers > 0 || m->writing) pthread_cond_wait(&m->opened, &m->gate);
        m->waiting_writers--;
    }
}

static void after_fork_in_parent(void) {
    fx_model *m;
    for (m = open_models; m != NULL; m = m->next_open) {
        pthread_cond_broadcast(&m->opened);
        pthread_mutex_unlock(&m->gate);
    }
    pthread_mutex_unlock(&open_lock);
}

static void after_fork_in_child(void) {
    fx_model *m;
    for (m = open_models; m != NULL; m = m->next_open) {
        /* The threads that waited at the gate exist in the parent alone. */
        m->waiting_writers = 0;
        pthread_cond_init(&m->opened, NULL);
        pthread_mutex_unlock(&m->gate);
        fx_pool_forget_threads(m->pool);
    }
    pthread_mutex_unlock(&open_lock);
}

static void watch_forks(void) { pthread_atfork(before_fork, after_fork_in_parent, after_fork_in_child); }

/* ---- who may use a model when ---- */

void fx_enter(fx_model *model, bool writing, fx_arena **arena) {
    pthread_mutex_lock(&model->gate);
    if (writing) {
        model->waiting_writers++;
        while (model->readers > 0 || model->writing) pthread_cond_wait(&model->opened, &model->gate);
        model->waiting_writers--;
        model->writing = 1;
    } else {
        while (model->writing || model->waiting_writers > 0)
            pthread_cond_wait(&model->opened, &model->gate);
        model->readers++;
    }
    if (arena != NULL) {
        *arena = model->free_arenas;
        if (*arena != NULL) model->free_arenas = (*arena)->next;
    }
    pthread_mutex_unlock(&model->gate);
}

void fx_leave(fx_model *model, bool writing, fx_arena *arena) {
    pthread_mutex_lock(&model->gate);
    if (arena != NULL) {
        arena->next = model->free_arenas;
        model->free_arenas = arena;
    }
    if (writing) {
        model->writing = 0;
        model->version++;
    } else {
        model->readers--;
    }
    pthread_cond_broadcast(&model->opened);
    pthread_mutex_unlock(&model->gate);
}

/* ---- public functions ---- */

static bool start(fx_model *model, const fx_model_desc *desc, int32_t threads) {
    model->desc = desc;
    model->version = 1;
    pthread_mutex_init(&model->gate, NULL);
    pthread_mutex_init(&model->preparing, NULL);
    pthread_cond_init(&model->opened, NULL);
    model->pool = fx_pool_new(threads > 0 ? threads : fx_available_cores());
    return model->pool != NULL && place_storages(model) && place_entries(model);
}

static int32_t initialize(fx_model *model, const char *weights, uint64_t seed) {
    const fx_model_desc *desc = model->desc;
    bool needs_file = false;
    int32_t i;
    for (i = 0; i < desc->n_storages; i++) {
        fx_fill(&desc->storages[i], seed, model->storages[i]);
        needs_file = needs_file || desc->storages[i].in_file;
    }
    if (weights != NULL) return fx_read_weights(model, weights, model->block);
    if (needs_file)
        return fx_fail(FX_ERR_ARGUMENT, "%s_open: weights is NULL, but the model has parameters", desc->name);
    return FX_OK;
}

fx_model *fx_open(const fx_model_desc *desc, const char *weights, uint64_t seed, int32_t threads) {
    fx_model *model;
    if (threads < 0 || threads > FX_MAX_THREADS) {
        fx_fail(FX_ERR_ARGUMENT, "%s_open: threads must lie between 0 and %d, got %d", desc->name,
                (int)FX_MAX_THREADS, (int)threads);
        return NULL;
    }
    pthread_once(&fork_once, watch_forks);
    model = calloc(1, sizeof *model);
    if (model == NULL || !start(model, desc, threads)) {
        if (model != NULL) release(model);
        fx_fail(FX_ERR_MEMORY, "%s_open: out of memory", desc->name);
        return NULL;
    }
    if (initialize(model, weights, seed) != FX_OK) {
        release(model);
        return NULL;
    }
    pthread_mutex_lock(&open_lock);
    model->next_open = open_models;
    open_models = model;
    pthread_mutex_unlock(&open_lock);
    return model;
}

void fx_close(fx_model *model) {
    fx_model **at;
    if (model == NULL) return;
    pthread_mutex_lock(&open_lock);
    for (at = &open_models; *at != NULL && *at != model; at = &(*at)->next_open) {}
    if (*at != NULL) *at = model->next_open;
    pthread_mutex_unlock(&open_lock);
    release(model);
}

const void *fx_storage(fx_model *model, const char *name) {
    int32_t i;
    if (model == NULL || name == NULL) {
        fx_fail(FX_ERR_ARGUMENT, "get: %s is NULL", model == NULL ? "the model" : "the name");
        return NULL;
    }
    i = fx_find_storage(model, name);
    if (i < 0) fx_fail(FX_ERR_ARGUMENT, "%s_get: nothing is named %s", model->desc->name, name);
    return i < 0 ? NULL : model->storages[i];
}

int32_t fx_set(fx_model *model, const char *name, const void *data, int64_t count) {
    const fx_storage_desc *s;
    int32_t i;
    if (model == NULL || name == NULL)
        return fx_fail(FX_ERR_ARGUMENT, "set: %s is NULL", model == NULL ? "the model" : "the name");
    i = fx_find_storage(model, name);
    if (i < 0) return fx_fail(FX_ERR_ARGUMENT, "%s_set: nothing is named %s", model->desc->name, name);
    s = &model->desc->storages[i];
    if (count != s->count)
        return fx_fail(FX_ERR_SIZE, "%s_set: %s has %lld elements, got %lld", model->desc->name, name,
                       (long long)s->count, (long long)count);
    if (data == NULL && count > 0)
        return fx_fail(FX_ERR_ARGUMENT, "%s_set: data for %s is NULL", model->desc->name, name);
    if (fx_check_values(s, data) != FX_OK) return FX_ERR_VALUE;
    fx_enter(model, true, NULL);
    if (count > 0) memmove(model->storages[i], data, (size_t)fx_storage_bytes(s));
    fx_leave(model, true, NULL);
    return FX_OK;
}

int32_t fx_save(fx_model *model, const char *path) {
    int32_t status;
    if (model == NULL || path == NULL)
        return fx_fail(FX_ERR_ARGUMENT, "save: %s is NULL", model == NULL ? "the model" : "the path");
    fx_enter(model, false, NULL);
    status = fx_write_weights(model, path);
    fx_leave(model, false, NULL);
    return status;
}

int32_t fx_load(fx_model *model, const char *path) {
    char *block;
    int32_t status;
    if (model == NULL || path == NULL)
        return fx_fail(FX_ERR_ARGUMENT, "load: %s is NULL", model == NULL ? "the model" : "the path");
    /* Read beside the live values, so that a bad file leaves the model as it was. */
    block = fx_allocate(model->block_bytes);
    if (block == NULL) return fx_fail(FX_ERR_MEMORY, "%s_load: out of memory", model->desc->name);
    fx_enter(model, true, NULL);
    if (model->block_bytes > 0) memcpy(block, model->block, (size_t)model->block_bytes);
    status = fx_read_weights(model, path, block);
    if (status == FX_OK && model->block_bytes > 0) memcpy(model->block, block, (size_t)model->block_bytes);
    fx_leave(model, true, NULL);
    fx_release(block);
    return status;
}
