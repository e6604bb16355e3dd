// Certificates and keys from their files, for whoever makes a context of OpenSSL 3.
//
// Threads: any; a context belongs to its caller. Calls read files. Errors are SL_E_CONFIG and name the file.
#ifndef SLUICE_BASE_TLS_FILES_H
#define SLUICE_BASE_TLS_FILES_H

#include "base/error.h"

#include <openssl/ssl.h>
#include <stdbool.h>

// Always false: "<what> <file>: <why>", the why from OpenSSL's queue of errors, which is empty then.
bool tls_files_fail(struct sl_error *err, const char *what, const char *file);
// The certificate with its chain, and its key, which must not ask for a passphrase. PEM.
bool tls_files_load(SSL_CTX *context, const char *certificate, const char *key, struct sl_error *err) SL_MUST_USE;
// Of the certificate that was loaded.
bool tls_files_expired(const SSL_CTX *context);

#endif
