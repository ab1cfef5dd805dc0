/* Thousands of altered weights files: each is refused or harmless, and the model stays as it was.
 * argv[1]: a right file; argv[2]: a path to write to; argv[3]: how many. */
#include "hand_model.h"

#include <string.h>

static uint32_t state = 1;

static uint32_t next(uint32_t below) {
    state = state * 1664525u + 1013904223u;
    return (state >> 8) % below;
}

static long read_all(const char *path, char *data, long room) {
    FILE *file = fopen(path, "rb");
    long n;
    CHECK(file != NULL);
    n = (long)fread(data, 1, (size_t)room, file);
    fclose(file);
    return n;
}

static void write_all(const char *path, const char *data, long n) {
    FILE *file = fopen(path, "wb");
    CHECK(file != NULL);
    CHECK(fwrite(data, 1, (size_t)n, file) == (size_t)n);
    CHECK(fclose(file) == 0);
}

/* Characters that mean something in a header are likelier than others. */
static char some_byte(void) {
    static const char telling[] = "{}[]\",:0123456789\\u \n";
    return next(2) ? (char)next(256) : telling[next(sizeof telling - 1)];
}

static long alter(char *data, long n, long header) {
    uint32_t times = 1 + next(4);
    while (times-- > 0) {
        uint32_t kind = next(8);
        long area = next(8) == 0 ? n : header, at = n == 0 ? 0 : (long)next((uint32_t)(area < n ? area : n)), length;
        if (n < 16) return n;
        switch (kind) {
        case 0: n = (long)next((uint32_t)n); break;                    /* truncate */
        case 1: data[at] = some_byte(); break;
        case 2: data[at] ^= (char)(1 << next(8)); break;
        case 3: data[next(8)] = (char)next(256); break;                /* the header's length */
        case 4: memmove(data + at + 1, data + at, (size_t)(n - at)); data[at] = some_byte(); n++; break;
        case 5: memmove(data + at, data + at + 1, (size_t)(n - at - 1)); n--; break;
        case 6: data[n++] = some_byte(); break;                        /* trailing bytes */
        default:                                                       /* one part over another */
            length = 1 + (long)next(40);
            if (at + length < n) memmove(data + next((uint32_t)(n - length)), data + at, (size_t)length);
        }
    }
    return n;
}

int main(int count, char **words) {
    static char right[4096], data[8192];
    long n = read_all(words[1], right, sizeof right), header, length;
    int i, refused = 0, files = count > 3 ? atoi(words[3]) : 1000;
    fx_model *m = hand_open(words[1], 0, 1);
    float before[12], after[12];
    CHECK(m != NULL);
    header = 8 + ((unsigned char)right[0] | (unsigned char)right[1] << 8);
    memcpy(before, hand_get(m, "layer.weight"), sizeof before);
    for (i = 0; i < files; i++) {
        memcpy(data, right, (size_t)n);
        length = alter(data, n, header);
        write_all(words[2], data, length);
        if (hand_load(m, words[2]) != 0) {
            CHECK(fx_error()[0] != '\0');
            memcpy(after, hand_get(m, "layer.weight"), sizeof after);
            CHECK(memcmp(before, after, sizeof before) == 0);
            refused++;
        } else {
            CHECK(hand_load(m, words[1]) == 0);
        }
    }
    hand_close(m);
    printf("%d of %d altered files were refused\n", refused, files);
    return refused * 2 > files ? 0 : 1;
}
