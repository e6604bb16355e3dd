// TLS by OpenSSL 3: one context a server.
//
// TLS 1.2 with forward secrecy and AEAD only (which RFC 9113 section 9.2.2 asks of HTTP/2), and TLS 1.3. ALPN: h2, then
// http/1.1; a client that offers neither gets HTTP/1.1. No early data: a replayed request must not look like a new one.
// No renegotiation: h2o cannot do it. Session tickets are encrypted with keys of this context and are bound to its
// name.
#include "gateway/http_internal.h"

#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>
#include <stdio.h>
#include <string.h>

static const h2o_iovec_t protocols[] = {{(char *)(uintptr_t) "h2", 2}, {(char *)(uintptr_t) "http/1.1", 8}, {NULL, 0}};

// Without one, OpenSSL would ask on the terminal.
static int no_passphrase(char *buffer, int size, int writing, void *user)
{
    (void)buffer;
    (void)size;
    (void)writing;
    (void)user;
    return -1;
}

static bool fail_tls(struct sl_error *err, const char *what, const char *file)
{
    // The first error is the cause; what follows is the same as told by callers.
    unsigned long code = ERR_get_error();
    const char *reason = ERR_reason_error_string(code);
    if (ERR_SYSTEM_ERROR(code))
        sl_fail_errno(err, SL_E_CONFIG, ERR_GET_REASON(code), "%s %s", what, file);
    else
        sl_fail(err, SL_E_CONFIG, "%s %s: %s", what, file, reason != NULL ? reason : "unknown error");
    ERR_clear_error();
    return false;
}

static void warn_when_expired(SSL_CTX *context, const char *file)
{
    const X509 *certificate = SSL_CTX_get0_certificate(context);
    if (X509_cmp_current_time(X509_get0_notAfter(certificate)) < 0)
        sl_logf(SL_WARN, "http", "the certificate has expired", SL_STR("file", file));
}

static bool load(SSL_CTX *context, const struct http_tls *tls, struct sl_error *err)
{
    if (SSL_CTX_use_certificate_chain_file(context, tls->certificate_file) != 1)
        return fail_tls(err, "certificate", tls->certificate_file);
    if (SSL_CTX_use_PrivateKey_file(context, tls->key_file, SSL_FILETYPE_PEM) != 1) {
        if (ERR_GET_REASON(ERR_peek_last_error()) == X509_R_KEY_VALUES_MISMATCH ||
            ERR_GET_REASON(ERR_peek_last_error()) == X509_R_KEY_TYPE_MISMATCH) {
            ERR_clear_error();
            return sl_fail(err, SL_E_CONFIG, "key %s does not belong to certificate %s", tls->key_file,
                           tls->certificate_file);
        }
        return fail_tls(err, "key", tls->key_file);
    }
    if (SSL_CTX_check_private_key(context) != 1) {
        ERR_clear_error();
        return sl_fail(err, SL_E_CONFIG, "key %s does not belong to certificate %s", tls->key_file,
                       tls->certificate_file);
    }
    warn_when_expired(context, tls->certificate_file);
    return true;
}

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
        return fail_tls(err, "TLS context of", options->name);
    SSL_CTX_set_min_proto_version(context, TLS1_2_VERSION);
    SSL_CTX_set_options(context, SSL_OP_NO_COMPRESSION | SSL_OP_NO_RENEGOTIATION | SSL_OP_CIPHER_SERVER_PREFERENCE |
                                     SSL_OP_PRIORITIZE_CHACHA);
    SSL_CTX_set_mode(context, SSL_MODE_RELEASE_BUFFERS);
    SSL_CTX_set_max_early_data(context, 0);
    SSL_CTX_set_default_passwd_cb(context, no_passphrase);
    char session_context[SSL_MAX_SID_CTX_LENGTH + 1];
    snprintf(session_context, sizeof(session_context), "sluice-%s", options->name);
    SSL_CTX_set_session_id_context(context, (unsigned char *)session_context, (unsigned)strlen(session_context));
    if (SSL_CTX_set_cipher_list(context, "ECDHE+AESGCM:ECDHE+CHACHA20") != 1 || !load(context, &options->tls, err)) {
        SSL_CTX_free(context);
        return false;
    }
    h2o_ssl_register_alpn_protocols(context, protocols);
    *out = context;
    return true;
}
