// A stand-in for klib's khash.h, which <h2o/http2_internal.h> includes and Debian's h2o packages do not ship.
//
// The header needs it for one field (a pointer) and one inline function that the gateway never calls: streams are found
// through the connection's own table (struct http_stream_slot). So a pointer to an incomplete type is all that is here.
// Threads: nothing here runs.
#ifndef SLUICE_GATEWAY_HTTP_SHIM_KHASH_H
#define SLUICE_GATEWAY_HTTP_SHIM_KHASH_H

typedef unsigned khiter_t;

#define khash_t(name)                    struct http_shim_khash_##name
#define KHASH_MAP_INIT_INT64(name, type) struct http_shim_khash_##name;
#define kh_get(name, table, key)         ((void)(table), (void)(key), 0u)
#define kh_end(table)                    ((void)(table), 0u)
#define kh_val(table, iterator)          ((void)(table), (void)(iterator), NULL)

#endif
