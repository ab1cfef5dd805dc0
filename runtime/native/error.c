/* The last failure of each thread, in words. */
#include "runtime.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

enum { MESSAGE_BYTES = 2048 };

/* A key instead of a thread-local variable: the latter makes the library need the dynamic linker's
 * own symbols beside the C library. */
static pthread_key_t message_key;
static pthread_once_t message_once = PTHREAD_ONCE_INIT;
static bool message_ready;

static void make_key(void) { message_ready = pthread_key_create(&message_key, free) == 0; }

#if defined(__GNUC__)
__attribute__((destructor)) static void drop_key(void) {
    /* A thread that ends after dlclose() must not call into unmapped code. */
    if (message_ready) pthread_key_delete(message_key);
    message_ready = false;
}
#endif

int32_t fx_fail(int32_t status, const char *format, ...) {
    va_list rest;
    char *message;
    pthread_once(&message_once, make_key);
    if (!message_ready) return status;
    message = pthread_getspecific(message_key);
    if (message == NULL) {
        message = malloc(MESSAGE_BYTES);
        if (message == NULL) return status;
        if (pthread_setspecific(message_key, message) != 0) {
            free(message);
            return status;
        }
    }
    va_start(rest, format);
    vsnprintf(message, MESSAGE_BYTES, format, rest);
    va_end(rest);
    return status;
}

const char *fx_error(void) {
    const char *message = NULL;
    pthread_once(&message_once, make_key);
    if (message_ready) message = pthread_getspecific(message_key);
    return message == NULL ? "" : message;
}
