// Certificates as a test needs them: right ones, expired ones, of another CA, with other names.
//
// Threads: one.
#ifndef SLUICE_TESTS_HA_CERTIFICATES_H
#define SLUICE_TESTS_HA_CERTIFICATES_H

#include <openssl/x509.h>

struct ca {
    EVP_PKEY *key;
    X509 *certificate;
};

void ca_make(struct ca *ca, const char *name, const char *file); // writes its certificate
void ca_free(struct ca *ca);
// A certificate with one DNS name, valid from `from_s` to `to_s`, seconds from now; `name` "" leaves the DNS name out.
// Certificate and key go to <base>.pem and <base>.key, each replaced atomically.
void ca_issue(const struct ca *ca, const char *name, long from_s, long to_s, const char *base);

#endif
