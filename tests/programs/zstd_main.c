/* Zstandard through its shared library: levels, threads, a dictionary, an error. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "zdict.h"
#include "zstd.h"

int main(void)
{
    enum { LEN = 3000000, SAMPLES = 400, SAMPLE = 512, DICT = 8192 };
    size_t bound = ZSTD_compressBound(LEN), sizes[SAMPLES], packed, dict_len;
    char *text = malloc(LEN), *back = malloc(LEN), *out = malloc(bound), *dict = malloc(DICT);
    unsigned state = 1;
    if (!text || !back || !out || !dict)
        return 2;
    for (int i = 0; i < LEN; i++) {
        state = state * 1103515245 + 12345;
        text[i] = (char)(state >> 16 & 15 ? "the quick brown fox "[i % 20] : 'A' + (state >> 24) % 26);
    }
    for (int level = 1; level <= 19; level += 6) {
        packed = ZSTD_compress(out, bound, text, 300000, level);
        if (ZSTD_isError(packed) || ZSTD_decompress(back, LEN, out, packed) != 300000 || memcmp(text, back, 300000))
            return 3;
        printf("level %d: %zu bytes\n", level, packed);
    }
    ZSTD_CCtx *context = ZSTD_createCCtx();
    if (ZSTD_isError(ZSTD_CCtx_setParameter(context, ZSTD_c_nbWorkers, 3)))
        return 4;
    packed = ZSTD_compress2(context, out, bound, text, LEN);
    if (ZSTD_isError(packed) || ZSTD_decompress(back, LEN, out, packed) != LEN || memcmp(text, back, LEN))
        return 5;
    printf("threads: %zu bytes\n", packed);
    for (int i = 0; i < SAMPLES; i++)
        sizes[i] = SAMPLE;
    dict_len = ZDICT_trainFromBuffer(dict, DICT, text, sizes, SAMPLES);
    printf("dictionary: %s\n", ZDICT_isError(dict_len) ? ZDICT_getErrorName(dict_len) : "made");
    out[packed / 2] ^= 0x55;
    printf("damaged: %s\n", ZSTD_getErrorName(ZSTD_decompress(back, LEN, out, packed / 2)));
    printf("version %u\n", ZSTD_versionNumber());
    ZSTD_freeCCtx(context);
    free(text);
    free(back);
    free(out);
    free(dict);
    return 0;
}
