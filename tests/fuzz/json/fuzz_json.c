// json_walk() on any bytes: tests/json/json_check.h says what must hold. The first byte picks the shape and the sizes.
#include "tests/json/json_check.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct json_check *check;
    if (check == NULL)
        check = json_check_new();
    if (size == 0)
        return 0;
    enum json_shape shape = data[0] & 1 ? JSON_SHAPE_LINES : JSON_SHAPE_DOCUMENT;
    json_check_body(check, shape, (struct sl_span){.bytes = data + 1, .length = size - 1}, data[0] >> 1);
    return 0;
}
