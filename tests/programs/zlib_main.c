/* zlib through its shared library: streams, a file, checksums, an error. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "zlib.h"

int main(int argc, char **argv)
{
    enum { LEN = 200000 };
    unsigned char *text = malloc(LEN), *back = malloc(LEN);
    uLongf packed_len = compressBound(LEN), back_len = LEN;
    unsigned char *packed = malloc(packed_len);
    char line[64];
    gzFile file;
    if (argc != 2 || !text || !back || !packed)
        return 2;
    for (int i = 0; i < LEN; i++)
        text[i] = (unsigned char)("abracadabra"[i % 11] + i / 4096 % 7);
    for (int level = 0; level <= 9; level += 3) {
        packed_len = compressBound(LEN);
        back_len = LEN;
        if (compress2(packed, &packed_len, text, LEN, level) != Z_OK)
            return 3;
        if (uncompress(back, &back_len, packed, packed_len) != Z_OK || back_len != LEN || memcmp(text, back, LEN))
            return 4;
        printf("level %d: %lu bytes\n", level, packed_len);
    }
    packed[packed_len / 2] ^= 0x55;
    back_len = LEN;
    printf("damaged: %s\n", zError(uncompress(back, &back_len, packed, packed_len)));
    printf("%08lx %08lx\n", crc32(0, text, LEN), adler32(1, text, LEN));
    file = gzopen(argv[1], "wb9");
    if (!file || gzprintf(file, "line %d\n%s\n", 1, "line 2") < 0 || gzclose(file) != Z_OK)
        return 5;
    file = gzopen(argv[1], "rb");
    while (file && gzgets(file, line, sizeof line))
        fputs(line, stdout);
    if (!file || gzclose(file) != Z_OK)
        return 6;
    printf("version %s\n", zlibVersion());
    free(text);
    free(back);
    free(packed);
    return 0;
}
