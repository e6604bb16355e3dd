#include "base/tls_files.h"

#include <openssl/err.h>
#include <openssl/x509.h>

// Without one, OpenSSL would ask on the terminal.
static int no_passphrase(char *buffer, int size, int writing, void *user)
{
    (void)buffer;
    (void)size;
    (void)writing;
    (void)user;
    return -1;
}

bool tls_files_fail(struct sl_error *err, const char *what, const char *file)
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

static bool fail_pair(const char *certificate, const char *key, struct sl_error *err)
{
    ERR_clear_error();
    return sl_fail(err, SL_E_CONFIG, "key %s does not belong to certificate %s", key, certificate);
}

bool tls_files_load(SSL_CTX *context, const char *certificate, const char *key, struct sl_error *err)
{
    SSL_CTX_set_default_passwd_cb(context, no_passphrase);
    if (SSL_CTX_use_certificate_chain_file(context, certificate) != 1)
        return tls_files_fail(err, "certificate", certificate);
    if (SSL_CTX_use_PrivateKey_file(context, key, SSL_FILETYPE_PEM) != 1) {
        int reason = ERR_GET_REASON(ERR_peek_last_error());
        bool mismatch = reason == X509_R_KEY_VALUES_MISMATCH || reason == X509_R_KEY_TYPE_MISMATCH;
        return mismatch ? fail_pair(certificate, key, err) : tls_files_fail(err, "key", key);
    }
    return SSL_CTX_check_private_key(context) == 1 || fail_pair(certificate, key, err);
}

bool tls_files_expired(const SSL_CTX *context)
{
    const X509 *certificate = SSL_CTX_get0_certificate(context);
    return X509_cmp_current_time(X509_get0_notAfter(certificate)) < 0;
}
