#!/usr/bin/env python3
"""Turns a file into a C source that holds it: embed.py FILE SYMBOL > OUT."""
import sys

data = open(sys.argv[1], "rb").read()
symbol = sys.argv[2]
print("#include <stddef.h>")
print(f"extern const char {symbol}[];\nextern const size_t {symbol}_length;")
print(f"const char {symbol}[] = {{")
for start in range(0, len(data), 16):
    print("    " + "".join(f"{byte if byte < 128 else byte - 256}," for byte in data[start:start + 16]))
print("    0};")
print(f"const size_t {symbol}_length = {len(data)};")
