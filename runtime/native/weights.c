/* Weights files: safetensors in and out.
 *
 * A file is eight bytes with the length of the header, the header, which is a JSON object, and the
 * data.  Nothing in a file is believed before it is checked: a tensor is taken only if its name, dtype
 * and shape are the declared ones and the tensors' ranges cover the data without gap or overlap. */
#include "runtime.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { MOST_HEADER_BYTES = 100 << 20, MOST_TENSORS = 100000, MOST_RANK = 32, LIST_BYTES = 600 };

/* In the order of enum fx_dtype. */
static const char *const FILE_DTYPES[] = {"F64", "F32", "F16", "BF16", "I64", "I32", "I16",
                                          "I8",  "U64", "U32", "U16",  "U8",  "BOOL"};
enum { N_DTYPES = sizeof FILE_DTYPES / sizeof *FILE_DTYPES };

typedef struct {
    const char *name; /* decoded in place, ends in '\0' */
    int32_t dtype, rank;
    int64_t shape[MOST_RANK];
    int64_t begin, end;
} fx_tensor;

/* What is being read: the text of the header, and where reading stands. */
typedef struct {
    const char *path;
    char *at, *end;
    const char *trouble; /* the first thing that is wrong, or NULL */
} fx_reader;

/* ---- JSON, as much of it as a header may hold ---- */

static bool wrong(fx_reader *r, const char *what) {
    if (r->trouble == NULL) r->trouble = what;
    return false;
}

static void skip_space(fx_reader *r) {
    while (r->at < r->end && (*r->at == ' ' || *r->at == '\n' || *r->at == '\t' || *r->at == '\r')) r->at++;
}

/* Whether `c` comes next; it is then passed. */
static bool next_is(fx_reader *r, char c) {
    skip_space(r);
    if (r->at >= r->end || *r->at != c) return false;
    r->at++;
    return true;
}

static bool expect(fx_reader *r, char c) { return next_is(r, c) || wrong(r, "the header is not the JSON of a safetensors file"); }

static bool read_hex(fx_reader *r, uint32_t *code) {
    int i;
    *code = 0;
    if (r->end - r->at < 4) return false;
    for (i = 0; i < 4; i++) {
        char c = *r->at++;
        uint32_t digit = c >= '0' && c <= '9'   ? (uint32_t)(c - '0')
                         : c >= 'a' && c <= 'f' ? (uint32_t)(c - 'a' + 10)
                         : c >= 'A' && c <= 'F' ? (uint32_t)(c - 'A' + 10)
                                                : 16u;
        if (digit == 16) return false;
        *code = *code * 16 + digit;
    }
    return true;
}

/* Writes `code` as UTF-8; never longer than the escape that it came from. */
static char *put_utf8(char *out, uint32_t code) {
    if (code < 0x80) {
        *out++ = (char)code;
    } else if (code < 0x800) {
        *out++ = (char)(0xc0 | code >> 6);
        *out++ = (char)(0x80 | (code & 0x3f));
    } else if (code < 0x10000) {
        *out++ = (char)(0xe0 | code >> 12);
        *out++ = (char)(0x80 | (code >> 6 & 0x3f));
        *out++ = (char)(0x80 | (code & 0x3f));
    } else {
        *out++ = (char)(0xf0 | code >> 18);
        *out++ = (char)(0x80 | (code >> 12 & 0x3f));
        *out++ = (char)(0x80 | (code >> 6 & 0x3f));
        *out++ = (char)(0x80 | (code & 0x3f));
    }
    return out;
}

static char *read_unicode(fx_reader *r, char *out) {
    uint32_t code, low;
    if (!read_hex(r, &code)) return NULL;
    if (code >= 0xdc00 && code < 0xe000) return NULL;
    if (code >= 0xd800 && code < 0xdc00) {
        if (r->end - r->at < 2 || r->at[0] != '\\' || r->at[1] != 'u') return NULL;
        r->at += 2;
        if (!read_hex(r, &low) || low < 0xdc00 || low >= 0xe000) return NULL;
        code = 0x10000 + ((code - 0xd800) << 10) + (low - 0xdc00);
    }
    return code == 0 ? NULL : put_utf8(out, code);
}

static char *read_escape(fx_reader *r, char *out) {
    static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
    const char *which;
    char c;
    if (r->at >= r->end) return NULL;
    c = *r->at++;
    if (c == 'u') return read_unicode(r, out);
    which = c == '\0' ? NULL : strchr(from, c);
    if (which == NULL) return NULL;
    *out++ = to[which - from];
    return out;
}

/* A string, decoded over its own text. */
static bool read_string(fx_reader *r, const char **text) {
    char *out;
    if (!expect(r, '"')) return false;
    *text = out = r->at;
    while (r->at < r->end) {
        char c = *r->at++;
        if (c == '"') {
            *out = '\0'; /* at or before the closing quote */
            return true;
        }
        if ((unsigned char)c < 0x20) break;
        if (c == '\\') {
            out = read_escape(r, out);
            if (out == NULL) break;
        } else {
            *out++ = c;
        }
    }
    return wrong(r, "a string in the header is malformed");
}

static bool read_number(fx_reader *r, int64_t *value) {
    char *start;
    skip_space(r);
    *value = 0;
    for (start = r->at; r->at < r->end && *r->at >= '0' && *r->at <= '9'; r->at++) {
        int64_t digit = *r->at - '0';
        if (*value > (INT64_MAX - digit) / 10) return wrong(r, "a number in the header is too large");
        *value = *value * 10 + digit;
    }
    if (r->at == start || (*start == '0' && r->at - start > 1))
        return wrong(r, "a size or an offset in the header is not a whole number");
    return true;
}

/* `[1, 2, 3]`, at most `most` numbers. */
static bool read_numbers(fx_reader *r, int64_t *values, int32_t most, int32_t *count) {
    *count = 0;
    if (!expect(r, '[')) return false;
    if (next_is(r, ']')) return true;
    do {
        if (*count == most) return wrong(r, "a list of numbers in the header is too long");
        if (!read_number(r, &values[(*count)++])) return false;
    } while (next_is(r, ','));
    return expect(r, ']');
}

static bool read_dtype(fx_reader *r, int32_t *dtype) {
    const char *text;
    if (!read_string(r, &text)) return false;
    for (*dtype = 0; *dtype < N_DTYPES; ++*dtype)
        if (strcmp(text, FILE_DTYPES[*dtype]) == 0) return true;
    return true; /* N_DTYPES: a dtype that no storage has; the mismatch is reported with the name */
}

static bool read_tensor(fx_reader *r, fx_tensor *t) {
    int64_t offsets[2] = {0, 0};
    int32_t n_offsets = 0, seen = 0, bit;
    const char *key;
    if (!expect(r, '{')) return false;
    do {
        if (!read_string(r, &key) || !expect(r, ':')) return false;
        bit = strcmp(key, "dtype") == 0 ? 1 : strcmp(key, "shape") == 0 ? 2 : strcmp(key, "data_offsets") == 0 ? 4 : 8;
        if (bit == 8 || (seen & bit)) return wrong(r, "a tensor in the header has an unknown or repeated field");
        seen |= bit;
        if (bit == 1 && !read_dtype(r, &t->dtype)) return false;
        if (bit == 2 && !read_numbers(r, t->shape, MOST_RANK, &t->rank)) return false;
        if (bit == 4 && !read_numbers(r, offsets, 2, &n_offsets)) return false;
    } while (next_is(r, ','));
    if (!expect(r, '}')) return false;
    if (seen != 7 || n_offsets != 2) return wrong(r, "a tensor in the header lacks its dtype, shape or offsets");
    t->begin = offsets[0];
    t->end = offsets[1];
    return true;
}

static bool read_metadata(fx_reader *r) {
    const char *text;
    if (!expect(r, '{')) return false;
    if (next_is(r, '}')) return true;
    do {
        if (!read_string(r, &text) || !expect(r, ':') || !read_string(r, &text)) return false;
    } while (next_is(r, ','));
    return expect(r, '}');
}

static bool add_tensor(fx_reader *r, fx_tensor **tensors, int64_t *n, int64_t *room, const char *name) {
    if (*n == MOST_TENSORS) return wrong(r, "the header names too many tensors");
    if (*n == *room) {
        int64_t more = *room * 2 + 16;
        fx_tensor *grown = realloc(*tensors, (size_t)more * sizeof **tensors);
        if (grown == NULL) return wrong(r, "there is no memory to read the header");
        *tensors = grown;
        *room = more;
    }
    memset(&(*tensors)[*n], 0, sizeof **tensors);
    (*tensors)[*n].name = name;
    return read_tensor(r, &(*tensors)[(*n)++]);
}

static bool read_header(fx_reader *r, fx_tensor **tensors, int64_t *n) {
    int64_t room = 0;
    bool metadata = false;
    const char *name;
    if (!expect(r, '{')) return false;
    if (!next_is(r, '}')) {
        do {
            if (!read_string(r, &name) || !expect(r, ':')) return false;
            if (strcmp(name, "__metadata__") == 0) {
                if (metadata) return wrong(r, "the header has __metadata__ twice");
                metadata = true;
                if (!read_metadata(r)) return false;
            } else if (!add_tensor(r, tensors, n, &room, name)) {
                return false;
            }
        } while (next_is(r, ','));
        if (!expect(r, '}')) return false;
    }
    skip_space(r);
    return r->at == r->end || wrong(r, "text follows the header");
}

/* ---- checks of the whole file ---- */

static int by_begin(const void *a, const void *b) {
    const fx_tensor *x = a, *y = b;
    if (x->begin != y->begin) return x->begin < y->begin ? -1 : 1;
    return x->end < y->end ? -1 : x->end > y->end;
}

static int by_name(const void *a, const void *b) {
    return strcmp(((const fx_tensor *)a)->name, ((const fx_tensor *)b)->name);
}

static bool check_layout(fx_reader *r, fx_tensor *tensors, int64_t n, int64_t data_bytes) {
    int64_t i, at = 0;
    if (n > 0) qsort(tensors, (size_t)n, sizeof *tensors, by_begin);
    for (i = 0; i < n; i++) {
        if (tensors[i].end < tensors[i].begin || tensors[i].end > data_bytes)
            return wrong(r, "it is truncated, or a tensor lies outside of it");
        if (tensors[i].begin != at) return wrong(r, "two tensors overlap, or bytes lie between them");
        at = tensors[i].end;
    }
    if (at != data_bytes) return wrong(r, "bytes follow the last tensor");
    if (n > 0) qsort(tensors, (size_t)n, sizeof *tensors, by_name);
    for (i = 1; i < n; i++)
        if (strcmp(tensors[i - 1].name, tensors[i].name) == 0) return wrong(r, "two tensors have one name");
    return true;
}

static const fx_tensor *find_tensor(const fx_tensor *tensors, int64_t n, const char *name) {
    fx_tensor key;
    if (n == 0) return NULL;
    key.name = name;
    return bsearch(&key, tensors, (size_t)n, sizeof *tensors, by_name);
}

static void list_name(char *list, const char *name) {
    size_t used = strlen(list);
    if (used + strlen(name) + 8 < LIST_BYTES) {
        snprintf(list + used, LIST_BYTES - used, "%s%s", used > 0 ? ", " : "", name);
    } else if (used < 4 || strcmp(list + used - 3, "...") != 0) {
        snprintf(list + used, LIST_BYTES - used, ", ...");
    }
}

/* State of training that another artifact of the same parameters may lack. */
static bool is_training_state(const char *name) {
    return strncmp(name, "optimizer.", 10) == 0 || strncmp(name, "random.", 7) == 0;
}

/* Length of `optimizer.<entry>.`. */
static size_t entry_prefix(const char *name) {
    const char *dot = strchr(name, '.');
    dot = dot == NULL ? NULL : strchr(dot + 1, '.');
    return dot == NULL ? strlen(name) : (size_t)(dot - name) + 1;
}

/* Whether the file has optimiser state of the entry that `missing` belongs to. */
static bool has_part_of(const fx_model_desc *d, const fx_tensor *tensors, int64_t n, const char *missing) {
    int32_t i;
    for (i = 0; i < d->n_storages; i++)
        if (d->storages[i].kind == FX_OPTIMIZER && find_tensor(tensors, n, d->storages[i].name) != NULL &&
            strncmp(d->storages[i].name, missing, entry_prefix(missing)) == 0)
            return true;
    return false;
}

static int32_t check_names(const fx_model *model, const char *path, const fx_tensor *tensors, int64_t n) {
    const fx_model_desc *d = model->desc;
    char missing[LIST_BYTES] = "", unexpected[LIST_BYTES] = "";
    int32_t i;
    int64_t k;
    for (i = 0; i < d->n_storages; i++) {
        const fx_storage_desc *s = &d->storages[i];
        if (find_tensor(tensors, n, s->name) != NULL) continue;
        if (s->in_file || s->kind == FX_PARAMETER || s->kind == FX_STATE ||
            (s->kind == FX_OPTIMIZER && has_part_of(d, tensors, n, s->name)))
            list_name(missing, s->name);
    }
    for (k = 0; k < n; k++)
        if (fx_find_storage(model, tensors[k].name) < 0 && !is_training_state(tensors[k].name))
            list_name(unexpected, tensors[k].name);
    if (missing[0] != '\0')
        return fx_fail(FX_ERR_FILE, "%s: it lacks %s%s%s", path, missing,
                       unexpected[0] != '\0' ? "; it has, unexpectedly, " : "", unexpected);
    if (unexpected[0] != '\0') return fx_fail(FX_ERR_FILE, "%s: it has, unexpectedly, %s", path, unexpected);
    return FX_OK;
}

static void print_type(char *out, size_t room, int32_t dtype, int32_t rank, const int64_t *shape) {
    size_t used;
    int32_t i;
    snprintf(out, room, "%s[", dtype < N_DTYPES ? fx_dtype_name(dtype) : "an unknown dtype");
    for (i = 0; i < rank; i++) {
        used = strlen(out);
        snprintf(out + used, room - used, "%s%lld", i > 0 ? ", " : "", (long long)shape[i]);
    }
    used = strlen(out);
    snprintf(out + used, room - used, "]");
}

static int32_t check_type(const char *path, const fx_storage_desc *s, const fx_tensor *t) {
    char expected[256], got[256];
    bool same = s->dtype == t->dtype && s->rank == t->rank;
    int32_t i;
    for (i = 0; same && i < s->rank; i++) same = s->shape[i] == t->shape[i];
    if (!same) {
        print_type(expected, sizeof expected, s->dtype, s->rank, s->shape);
        print_type(got, sizeof got, t->dtype, t->rank, t->shape);
        return fx_fail(FX_ERR_FILE, "%s: %s should be %s, got %s", path, s->name, expected, got);
    }
    if (t->end - t->begin != fx_storage_bytes(s))
        return fx_fail(FX_ERR_FILE, "%s: %s takes %lld bytes, the file gives it %lld", path, s->name,
                       (long long)fx_storage_bytes(s), (long long)(t->end - t->begin));
    return FX_OK;
}

/* ---- reading ---- */

static bool read_fully(int file, char *data, int64_t bytes, int64_t offset) {
    while (bytes > 0) {
        size_t part = bytes > (1 << 30) ? (size_t)1 << 30 : (size_t)bytes;
        ssize_t got = pread(file, data, part, (off_t)offset);
        if (got < 0 && errno == EINTR) continue;
        if (got <= 0) return false;
        data += got, bytes -= got, offset += got;
    }
    return true;
}

static int32_t take_tensors(const fx_model *model, const char *path, int file, int64_t data_at,
                            const fx_tensor *tensors, int64_t n, char *block) {
    int32_t i;
    for (i = 0; i < model->desc->n_storages; i++) {
        const fx_storage_desc *s = &model->desc->storages[i];
        const fx_tensor *t = find_tensor(tensors, n, s->name);
        void *data = fx_in_block(model, block, i);
        if (t == NULL) {
            if (s->kind == FX_OPTIMIZER) fx_fill(s, 0, data);
            continue;
        }
        if (check_type(path, s, t) != FX_OK) return FX_ERR_FILE;
        if (!read_fully(file, data, t->end - t->begin, data_at + t->begin))
            return fx_fail(FX_ERR_FILE, "%s: it is truncated, or cannot be read: %s", path, s->name);
        if (fx_check_values(s, data) != FX_OK) {
            char why[LIST_BYTES]; /* fx_error() is where fx_fail() writes */
            snprintf(why, sizeof why, "%s", fx_error());
            return fx_fail(FX_ERR_FILE, "%s: %s", path, why);
        }
    }
    return FX_OK;
}

static int32_t read_open_file(const fx_model *model, const char *path, int file, int64_t bytes, char *block) {
    fx_reader r = {path, NULL, NULL, NULL};
    fx_tensor *tensors = NULL;
    char *header;
    unsigned char length[8];
    uint64_t header_bytes = 0;
    int64_t n = 0;
    int32_t i, status;
    if (bytes < 8 || !read_fully(file, (char *)length, 8, 0))
        return fx_fail(FX_ERR_FILE, "%s: too short for a safetensors file", path);
    for (i = 7; i >= 0; i--) header_bytes = header_bytes << 8 | length[i];
    if (header_bytes > (uint64_t)(bytes - 8) || header_bytes > (uint64_t)MOST_HEADER_BYTES)
        return fx_fail(FX_ERR_FILE, "%s: it is truncated, or not a safetensors file", path);
    header = malloc((size_t)header_bytes + 1);
    if (header == NULL) return fx_fail(FX_ERR_MEMORY, "%s: no memory to read the header", path);
    r.at = header;
    r.end = header + header_bytes;
    if (!read_fully(file, header, (int64_t)header_bytes, 8)) {
        status = fx_fail(FX_ERR_FILE, "%s: cannot be read", path);
    } else if (!read_header(&r, &tensors, &n) ||
               !check_layout(&r, tensors, n, bytes - 8 - (int64_t)header_bytes)) {
        status = fx_fail(FX_ERR_FILE, "%s: %s", path, r.trouble);
    } else {
        status = check_names(model, path, tensors, n);
        if (status == FX_OK)
            status = take_tensors(model, path, file, 8 + (int64_t)header_bytes, tensors, n, block);
    }
    free(tensors);
    free(header);
    return status;
}

int32_t fx_read_weights(const fx_model *model, const char *path, char *block) {
    struct stat about;
    int32_t status;
    /* O_NONBLOCK: opening a pipe must not wait for someone to write into it. */
    int file = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (file < 0) return fx_fail(FX_ERR_FILE, "%s: cannot be opened: %s", path, strerror(errno));
    if (fstat(file, &about) != 0 || !S_ISREG(about.st_mode)) {
        status = fx_fail(FX_ERR_FILE, "%s: not a regular file", path);
    } else {
        status = read_open_file(model, path, file, (int64_t)about.st_size, block);
    }
    close(file);
    return status;
}

/* ---- writing ---- */

static void put_name(FILE *out, const char *name) {
    fputc('"', out);
    for (; *name != '\0'; name++) {
        if (*name == '"' || *name == '\\') {
            fprintf(out, "\\%c", *name);
        } else if ((unsigned char)*name < 0x20) {
            fprintf(out, "\\u%04x", (unsigned)(unsigned char)*name);
        } else {
            fputc(*name, out);
        }
    }
    fputc('"', out);
}

static void put_entry(FILE *out, const fx_storage_desc *s, int64_t begin) {
    int32_t i;
    fputc(',', out);
    put_name(out, s->name);
    fprintf(out, ":{\"dtype\":\"%s\",\"shape\":[", FILE_DTYPES[s->dtype]);
    for (i = 0; i < s->rank; i++) fprintf(out, "%s%lld", i > 0 ? "," : "", (long long)s->shape[i]);
    fprintf(out, "],\"data_offsets\":[%lld,%lld]}", (long long)begin, (long long)(begin + fx_storage_bytes(s)));
}

/* Wide elements first, so that every tensor is aligned in the file; else the declared order. */
static void order_storages(const fx_model_desc *d, int32_t *order) {
    int32_t i, n = 0;
    int64_t size;
    for (size = 8; size > 0; size /= 2)
        for (i = 0; i < d->n_storages; i++)
            if (fx_itemsize(d->storages[i].dtype) == size) order[n++] = i;
}

static bool write_all(FILE *out, const fx_model *model, const int32_t *order) {
    const fx_model_desc *d = model->desc;
    int64_t begin = 0;
    uint64_t length;
    unsigned char bytes[8] = {0};
    long end;
    int32_t i;
    if (fwrite(bytes, 1, 8, out) != 8) return false;
    fprintf(out, "{\"__metadata__\":{\"format\":\"fluxc\",\"model\":");
    put_name(out, d->name);
    fputc('}', out);
    for (i = 0; i < d->n_storages; i++) {
        put_entry(out, &d->storages[order[i]], begin);
        begin += fx_storage_bytes(&d->storages[order[i]]);
    }
    fputc('}', out);
    while ((end = ftell(out)) > 0 && end % 8 != 0) fputc(' ', out);
    length = (uint64_t)end - 8;
    for (i = 0; i < d->n_storages; i++) {
        size_t size = (size_t)fx_storage_bytes(&d->storages[order[i]]);
        if (size > 0 && fwrite(model->storages[order[i]], 1, size, out) != size) return false;
    }
    for (i = 0; i < 8; i++) bytes[i] = (unsigned char)(length >> (8 * i));
    return end > 0 && fseek(out, 0, SEEK_SET) == 0 && fwrite(bytes, 1, 8, out) == 8 && fflush(out) == 0 &&
           fsync(fileno(out)) == 0;
}

/* The new name must survive a power cut as well as the new file does. */
static void sync_folder(const char *path) {
    const char *slash = strrchr(path, '/');
    size_t length = slash == NULL ? 1 : slash == path ? 1 : (size_t)(slash - path);
    char *folder = malloc(length + 1);
    int file;
    if (folder == NULL) return;
    memcpy(folder, slash == NULL ? "." : path, length);
    folder[length] = '\0';
    file = open(folder, O_RDONLY | O_CLOEXEC);
    if (file >= 0) {
        fsync(file);
        close(file);
    }
    free(folder);
}

static int32_t replace_file(const fx_model *model, const char *path, const char *temporary, const int32_t *order) {
    int file = open(temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    FILE *out = file < 0 ? NULL : fdopen(file, "wb");
    bool written;
    int why;
    if (out == NULL) {
        why = errno;
        if (file >= 0) close(file), unlink(temporary);
        return fx_fail(FX_ERR_FILE, "%s: cannot be written: %s", path, strerror(why));
    }
    written = write_all(out, model, order);
    why = errno;
    if (fclose(out) != 0) written = false, why = errno;
    if (written && rename(temporary, path) != 0) written = false, why = errno;
    if (!written) {
        unlink(temporary);
        return fx_fail(FX_ERR_FILE, "%s: cannot be written: %s", path, strerror(why));
    }
    sync_folder(path);
    return FX_OK;
}

int32_t fx_write_weights(const fx_model *model, const char *path) {
    static uint32_t counter;
    size_t room = strlen(path) + 64;
    char *temporary = malloc(room);
    int32_t *order = malloc(((size_t)model->desc->n_storages + 1) * sizeof *order);
    int32_t status = FX_OK, i;
    /* A file that could not be loaded again is not written. */
    for (i = 0; status == FX_OK && i < model->desc->n_storages; i++)
        status = fx_check_values(&model->desc->storages[i], model->storages[i]);
    if (status == FX_OK && (temporary == NULL || order == NULL))
        status = fx_fail(FX_ERR_MEMORY, "%s: out of memory", path);
    if (status == FX_OK) {
        snprintf(temporary, room, "%s.%ld.%lu.tmp", path, (long)getpid(),
                 (unsigned long)__atomic_add_fetch(&counter, 1, __ATOMIC_RELAXED));
        order_storages(model->desc, order);
        status = replace_file(model, path, temporary, order);
    }
    free(temporary);
    free(order);
    return status;
}
