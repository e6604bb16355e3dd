#include "tests/ha/certificates.h"

#include "base/error.h"

#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <stdio.h>

static X509 *certificate_of(EVP_PKEY *key, const char *common_name, long from_s, long to_s)
{
    static long serial;
    X509 *certificate = X509_new();
    sl_assert(certificate != NULL && X509_set_version(certificate, 2) == 1);
    ASN1_INTEGER_set(X509_get_serialNumber(certificate), ++serial);
    X509_gmtime_adj(X509_getm_notBefore(certificate), from_s);
    X509_gmtime_adj(X509_getm_notAfter(certificate), to_s);
    X509_NAME_add_entry_by_txt(X509_get_subject_name(certificate), "CN", MBSTRING_ASC,
                               (const unsigned char *)common_name, -1, -1, 0);
    sl_assert(X509_set_pubkey(certificate, key) == 1);
    return certificate;
}

static void extend(X509 *certificate, int nid, const char *value)
{
    X509V3_CTX context;
    X509V3_set_ctx(&context, NULL, certificate, NULL, NULL, 0);
    X509_EXTENSION *extension = X509V3_EXT_conf_nid(NULL, &context, nid, value);
    sl_assert(extension != NULL && X509_add_ext(certificate, extension, -1) == 1);
    X509_EXTENSION_free(extension);
}

// By way of another name: nobody ever reads half a file.
static FILE *begin_file(const char *file, char temporary[512])
{
    snprintf(temporary, 512, "%s.new", file);
    FILE *out = fopen(temporary, "w");
    sl_assert(out != NULL);
    return out;
}

static void end_file(FILE *out, const char *temporary, const char *file)
{
    sl_assert(fclose(out) == 0 && rename(temporary, file) == 0);
}

static void write_certificate(X509 *certificate, const char *file)
{
    char temporary[512];
    FILE *out = begin_file(file, temporary);
    sl_assert(PEM_write_X509(out, certificate) == 1);
    end_file(out, temporary, file);
}

void ca_make(struct ca *ca, const char *name, const char *file)
{
    ca->key = EVP_EC_gen("P-256");
    sl_assert(ca->key != NULL);
    ca->certificate = certificate_of(ca->key, name, -86400, 86400);
    X509_set_issuer_name(ca->certificate, X509_get_subject_name(ca->certificate));
    extend(ca->certificate, NID_basic_constraints, "critical,CA:TRUE");
    extend(ca->certificate, NID_key_usage, "critical,keyCertSign");
    sl_assert(X509_sign(ca->certificate, ca->key, EVP_sha256()) > 0);
    write_certificate(ca->certificate, file);
}

void ca_free(struct ca *ca)
{
    EVP_PKEY_free(ca->key);
    X509_free(ca->certificate);
}

void ca_issue(const struct ca *ca, const char *name, long from_s, long to_s, const char *base)
{
    char file[400], temporary[512], alternative[128];
    EVP_PKEY *key = EVP_EC_gen("P-256");
    sl_assert(key != NULL);
    // The common name is always one that would be right: it must not count.
    X509 *certificate = certificate_of(key, "gw-a1", from_s, to_s);
    X509_set_issuer_name(certificate, X509_get_subject_name(ca->certificate));
    if (name[0] != '\0') {
        snprintf(alternative, sizeof(alternative), "DNS:%s", name);
        extend(certificate, NID_subject_alt_name, alternative);
    }
    sl_assert(X509_sign(certificate, ca->key, EVP_sha256()) > 0);
    snprintf(file, sizeof(file), "%s.key", base);
    FILE *out = begin_file(file, temporary);
    sl_assert(PEM_write_PrivateKey(out, key, NULL, NULL, 0, NULL, NULL) == 1);
    end_file(out, temporary, file);
    snprintf(file, sizeof(file), "%s.pem", base);
    write_certificate(certificate, file);
    X509_free(certificate);
    EVP_PKEY_free(key);
}
