// The armour of HTTP/1.1: every request head and every chunk passes here.
//
// h2o forgives what an intermediary may read otherwise (request smuggling): Content-Length beside Transfer-Encoding,
// two lengths of which it takes the first, folded lines, bare line feeds, anything between a chunk's size and its line
// end. It takes Content-Length and Transfer-Encoding out of the headers before a handler could look at them. So the
// head is checked between picohttpparser and h2o, by RFC 9112 to the letter.
//
// Refusing: the hook pretends that a plain GET came, with nothing behind it, and leaves a note (conn->refusal); the
// handler finds the note and answers with it, and the connection is closed. So also garbage gets a problem+json.
#include "gateway/http_internal.h"

#include <string.h>
#include <strings.h>

enum {
    EXTENSION_BYTES_MAX = 100, // of one chunk; it has to fit the decoder's one char
    SIZE_DIGITS_MAX = 15,      // of one chunk
};

static const struct phr_header *first_of(const struct phr_header *headers, size_t count, const char *name,
                                         size_t *times)
{
    const struct phr_header *first = NULL;
    size_t length = strlen(name);
    *times = 0;
    for (size_t i = 0; i < count; i++) {
        if (headers[i].name_len != length || strncasecmp(headers[i].name, name, length) != 0)
            continue;
        if ((*times)++ == 0)
            first = &headers[i];
    }
    return first;
}

static bool is_digits(const char *text, size_t length)
{
    for (size_t i = 0; i < length; i++)
        if (text[i] < '0' || text[i] > '9')
            return false;
    return length > 0 && length <= 18;
}

// Lines end with CR LF, none is a continuation; also cuts the white space behind values, which picohttpparser leaves.
static const char *check_lines(const char *path_end, const char *end, struct phr_header *headers, size_t count)
{
    if (path_end[sizeof(" HTTP/1.1") - 1] != '\r' || end[-2] != '\r')
        return "a line does not end with CR LF";
    for (size_t i = 0; i < count; i++) {
        struct phr_header *header = &headers[i];
        if (header->name == NULL)
            return "a folded header line";
        if (header->value[header->value_len] != '\r')
            return "a line does not end with CR LF";
        while (header->value_len > 0 &&
               (header->value[header->value_len - 1] == ' ' || header->value[header->value_len - 1] == '\t'))
            header->value_len--;
    }
    return NULL;
}

// RFC 9112 sections 3.2, 6.1 and 6.3.
static const char *check_framing(int minor_version, const struct phr_header *headers, size_t count)
{
    size_t hosts, lengths, encodings;
    first_of(headers, count, "host", &hosts);
    const struct phr_header *length = first_of(headers, count, "content-length", &lengths);
    const struct phr_header *encoding = first_of(headers, count, "transfer-encoding", &encodings);
    if (hosts > 1 || (hosts == 0 && minor_version >= 1))
        return "not exactly one Host";
    if (lengths > 0 && encodings > 0)
        return "both Content-Length and Transfer-Encoding";
    if (lengths > 1)
        return "more than one Content-Length";
    if (encodings > 1)
        return "more than one Transfer-Encoding";
    if (encodings == 1 && minor_version < 1)
        return "Transfer-Encoding in HTTP/1.0";
    if (lengths == 1 && !is_digits(length->value, length->value_len))
        return "Content-Length is not a number";
    if (encodings == 1 && (encoding->value_len != 7 || strncasecmp(encoding->value, "chunked", 7) != 0))
        return "a Transfer-Encoding other than chunked";
    return NULL;
}

// An upgrade to HTTP/2 is let through when the request has no body and nothing follows it; else it is ignored, as it
// may be.
static void filter_upgrade(struct http_conn *conn, struct phr_header *headers, size_t *count, bool alone)
{
    size_t times;
    http_here.upgrading = NULL;
    if (first_of(headers, *count, "upgrade", &times) == NULL)
        return;
    if ((alone && times == 1 && !conn->tls) || !HTTP_ARMED("upgrade")) {
        http_here.upgrading = conn;
        return;
    }
    size_t kept = 0;
    for (size_t i = 0; i < *count; i++)
        if (headers[i].name_len != 7 || strncasecmp(headers[i].name, "upgrade", 7) != 0)
            headers[kept++] = headers[i];
    *count = kept;
}

static bool is_http2_preface(const char *input, size_t length)
{
    return length >= 12 && memcmp(input, "PRI * HTTP/2", 12) == 0;
}

static bool is_blank(const char *input, size_t length)
{
    return length <= 4 && strspn(input, "\r\n") >= length;
}

static void refuse(struct http_conn *conn, int status, const char *detail)
{
    conn->refusal = (struct http_refusal){.request = conn->h1_request, .status = status, .detail = detail};
}

// Looks at what picohttpparser made of the head; leaves a refusal where there is something to refuse.
static void check_head(struct http_conn *conn, const char *input, int parsed, const char *path_end, int minor_version,
                       struct phr_header *headers, size_t count)
{
    const struct http_limits *limits = &conn->loop->server->limits;
    const char *problem = NULL;
    if ((size_t)parsed > limits->header_block_bytes)
        refuse(conn, 431, "the headers are too long");
    else if (count > limits->header_count)
        refuse(conn, 431, "too many header fields");
    else if (HTTP_ARMED("smuggling") && ((problem = check_lines(path_end, input + parsed, headers, count)) != NULL ||
                                         (problem = check_framing(minor_version, headers, count)) != NULL))
        refuse(conn, 400, problem);
}

int phr_parse_request(const char *buf, size_t len, const char **method, size_t *method_len, const char **path,
                      size_t *path_len, int *minor_version, struct phr_header *headers, size_t *num_headers,
                      size_t last_len)
{
    HTTP_HOOK_SEEN(phr_parse_request);
    size_t headers_max = *num_headers, times;
    int parsed = http_real.parse_request(buf, len, method, method_len, path, path_len, minor_version, headers,
                                         num_headers, last_len);
    // h2o passes the fields of its request (http1.c, handle_incoming_request): that is how it is found.
    h2o_req_t *req = H2O_STRUCT_FROM_MEMBER(h2o_req_t, input.method.base, method);
    struct http_conn *conn = http_conn_of_request(req);
    if (conn == NULL)
        return parsed;
    conn->protocol = HTTP_1;
    conn->h1_request = req;
    if (conn->receiving_ns == 0)
        conn->receiving_ns = http_loop_now_ns(conn->loop);
    if (parsed == -2 && len > conn->loop->server->limits.header_block_bytes)
        refuse(conn, 431, "the headers are too long");
    else if (parsed == -1 && *num_headers == headers_max)
        refuse(conn, 431, "too many header fields");
    else if (parsed == -1 && !is_http2_preface(buf, len) && !is_blank(buf, len))
        refuse(conn, 400, "not HTTP");
    else if (parsed > 0)
        check_head(conn, buf, parsed, *path + *path_len, *minor_version, headers, *num_headers);

    if (conn->refusal.request == req) {
        *method = "GET";
        *method_len = 3;
        if (parsed <= 0 || *path_len == 0) {
            *path = "/";
            *path_len = 1;
        }
        *minor_version = 1;
        *num_headers = 0;
        return (int)len; // nothing behind it is looked at
    }
    if (parsed <= 0) {
        conn->phase = HTTP_HEAD;
        return parsed;
    }
    bool has_body = first_of(headers, *num_headers, "content-length", &times) != NULL ||
                    first_of(headers, *num_headers, "transfer-encoding", &times) != NULL;
    filter_upgrade(conn, headers, num_headers, !has_body && (size_t)parsed == len);
    conn->phase = has_body ? HTTP_BODY : HTTP_ANSWERING;
    if (!has_body)
        conn->receiving_ns = 0;
    return parsed;
}

// ---- chunks

enum chunk_state {
    CHUNK_SIZE, // the first: h2o zero-fills the decoder
    CHUNK_EXTENSION,
    CHUNK_SIZE_LF,
    CHUNK_DATA,
    CHUNK_DATA_CR,
    CHUNK_DATA_LF,
    CHUNK_TRAILER_START,
    CHUNK_TRAILER,
    CHUNK_TRAILER_LF,
    CHUNK_END_LF,
    CHUNK_COMPLETE,
    CHUNK_BROKEN,
};

static int digit_of(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    if (c >= 'A' && c <= 'F')
        return c - 'A' + 10;
    return -1;
}

static enum chunk_state on_size(struct phr_chunked_decoder *decoder, char c)
{
    int digit = digit_of(c);
    if (digit >= 0) {
        decoder->bytes_left_in_chunk = decoder->bytes_left_in_chunk * 16 + (size_t)digit;
        return ++decoder->_hex_count > SIZE_DIGITS_MAX ? CHUNK_BROKEN : CHUNK_SIZE;
    }
    if (decoder->_hex_count == 0)
        return CHUNK_BROKEN;
    decoder->_hex_count = 0;
    return c == '\r' ? CHUNK_SIZE_LF : c == ';' ? CHUNK_EXTENSION : CHUNK_BROKEN;
}

// Any state but CHUNK_DATA, by one byte. In a trailer, bytes_left_in_chunk counts its bytes.
static enum chunk_state on_byte(struct phr_chunked_decoder *decoder, char c)
{
    switch ((enum chunk_state)decoder->_state) {
    case CHUNK_SIZE:
        return on_size(decoder, c);
    case CHUNK_EXTENSION:
        if (c == '\r')
            return CHUNK_SIZE_LF;
        return c == '\n' || ++decoder->_hex_count > EXTENSION_BYTES_MAX ? CHUNK_BROKEN : CHUNK_EXTENSION;
    case CHUNK_SIZE_LF:
        decoder->_hex_count = 0;
        if (c != '\n')
            return CHUNK_BROKEN;
        return decoder->bytes_left_in_chunk == 0 ? CHUNK_TRAILER_START : CHUNK_DATA;
    case CHUNK_DATA_CR:
        return c == '\r' ? CHUNK_DATA_LF : CHUNK_BROKEN;
    case CHUNK_DATA_LF:
        return c == '\n' ? CHUNK_SIZE : CHUNK_BROKEN;
    case CHUNK_TRAILER_START:
        return c == '\r' ? CHUNK_END_LF : c == '\n' || c == ' ' || c == '\t' ? CHUNK_BROKEN : CHUNK_TRAILER;
    case CHUNK_TRAILER:
        if (++decoder->bytes_left_in_chunk > HTTP_FLOOR_BYTES)
            return CHUNK_BROKEN;
        return c == '\r' ? CHUNK_TRAILER_LF : c == '\n' ? CHUNK_BROKEN : CHUNK_TRAILER;
    case CHUNK_TRAILER_LF:
        return c == '\n' ? CHUNK_TRAILER_START : CHUNK_BROKEN;
    case CHUNK_END_LF:
        return c == '\n' ? CHUNK_COMPLETE : CHUNK_BROKEN;
    case CHUNK_DATA:
    case CHUNK_COMPLETE:
    case CHUNK_BROKEN:
        break;
    }
    return CHUNK_BROKEN;
}

// RFC 9112 section 7.1, strictly; extensions and trailers are dropped. Replaces picohttpparser's, with its contract:
// the decoded bytes are moved to the front of `buf`, *bufsz becomes their number; −2: more must come; −1: broken; else
// the number of bytes behind the body, which follow the decoded ones.
ssize_t phr_decode_chunked(struct phr_chunked_decoder *decoder, char *buf, size_t *bufsz)
{
    HTTP_HOOK_SEEN(phr_decode_chunked);
    size_t from = 0, to = 0, length = *bufsz;
    while (from < length && decoder->_state != CHUNK_COMPLETE && decoder->_state != CHUNK_BROKEN) {
        if (decoder->_state != CHUNK_DATA) {
            decoder->_state = (char)on_byte(decoder, buf[from++]);
            continue;
        }
        size_t some = length - from < decoder->bytes_left_in_chunk ? length - from : decoder->bytes_left_in_chunk;
        memmove(buf + to, buf + from, some);
        from += some;
        to += some;
        decoder->bytes_left_in_chunk -= some;
        if (decoder->bytes_left_in_chunk == 0)
            decoder->_state = CHUNK_DATA_CR;
    }
    *bufsz = to;
    if (decoder->_state == CHUNK_BROKEN)
        return -1;
    if (decoder->_state != CHUNK_COMPLETE)
        return -2;
    memmove(buf + to, buf + from, length - from);
    return (ssize_t)(length - from);
}
