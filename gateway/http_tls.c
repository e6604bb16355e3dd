// TLS by OpenSSL 3: one context a server.
//
// TLS 1.2 with forward secrecy and AEAD only (which RFC 9113 section 9.2.2 asks of HTTP/2), and TLS 1.3. ALPN: h2, then
// http/1.1; a client that offers neither gets HTTP/1.1. No early data: a replayed request must not look like a new one.
// No renegotiation: h2o cannot do it. Session tickets are encrypted with keys of this context and are bound to its
// name.
#include "gateway/http_internal.h"

#include "base/tls_files.h"

#include <openssl/err.h>
#include <openssl/ssl.h>
#include <stdio.h>
#include <string.h>

static const h2o_iovec_t protocols[] = {{(char *)(uintptr_t) "h2", 2}, {(char *)(uintptr_t) "http/1.1", 8}, {NULL, 0}};

bool http_tls_create(SSL_CTX **out, const struct http_options *options, struct sl_error *err)
{
    *out = NULL;
    bool wanted = false;
    for (size_t i = 0; i < options->listener_count; i++)
        wanted |= options->listeners[i].tls;
    if (!wanted)
        return true;
    if (options->tls.certificate_file == NULL || options->tls.key_file == NULL)
        return sl_fail(err, SL_E_CONFIG, "a listener with tls needs a certificate and a key");
    ERR_clear_error();
    SSL_CTX *context = SSL_CTX_new(TLS_server_method());
    if (context == NULL)
        return tls_files_fail(err, "TLS context of", options->name);
    SSL_CTX_set_min_proto_version(context, TLS1_2_VERSION);
    SSL_CTX_set_options(context, SSL_OP_NO_COMPRESSION | SSL_OP_NO_RENEGOTIATION | SSL_OP_CIPHER_SERVER_PREFERENCE |
                                     SSL_OP_PRIORITIZE_CHACHA);
    SSL_CTX_set_mode(context, SSL_MODE_RELEASE_BUFFERS);
    SSL_CTX_set_max_early_data(context, 0);
    char session_context[SSL_MAX_SID_CTX_LENGTH + 1];
    snprintf(session_context, sizeof(session_context), "sluice-%s", options->name);
    SSL_CTX_set_session_id_context(context, (unsigned char *)session_context, (unsigned)strlen(session_context));
    const struct http_tls *tls = &options->tls;
    if (SSL_CTX_set_cipher_list(context, "ECDHE+AESGCM:ECDHE+CHACHA20") != 1 ||
        !tls_files_load(context, tls->certificate_file, tls->key_file, err)) {
        SSL_CTX_free(context);
        return false;
    }
    if (tls_files_expired(context))
        sl_logf(SL_WARN, "http", "the certificate has expired", SL_STR("file", tls->certificate_file));
    h2o_ssl_register_alpn_protocols(context, protocols);
    *out = context;
    return true;
}
