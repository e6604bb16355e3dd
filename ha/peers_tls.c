// Mutual TLS 1.3 of a link. A certificate is good when `ca` signed it, it is in its time, and a DNS name in it is the
// peer's name or its zone (no wildcards, no common name). There are no tickets and no resumption: every session shows
// its certificates, and they are read from their files for every session, so that they can be replaced at any time.
//
// Failure modes: the client's side is done before the server has looked at its certificate, so a refusal comes later,
// as an alert in the middle of reading. Each of these is told in words that say whose certificate it is.
#include "ha/peers_internal.h"

#include "base/tls_files.h"

#include <errno.h>
#include <openssl/err.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <string.h>

enum { ALERT_CERTIFICATE_REQUIRED = 116 };

// ---- their certificate

static void subject_of(X509 *certificate, char *text, size_t size)
{
    text[0] = '\0';
    if (certificate != NULL)
        X509_NAME_oneline(X509_get_subject_name(certificate), text, (int)size);
}

static void date_of(const ASN1_TIME *time, char *text, size_t size)
{
    struct tm tm;
    text[0] = '\0';
    if (ASN1_TIME_to_tm(time, &tm) == 1)
        strftime(text, size, "%Y-%m-%dT%H:%M:%SZ", &tm);
}

static bool names(X509 *certificate, const char *name)
{
    const unsigned flags = X509_CHECK_FLAG_NO_WILDCARDS | X509_CHECK_FLAG_NEVER_CHECK_SUBJECT;
    return X509_check_host(certificate, name, strlen(name), flags, NULL) == 1;
}

static bool names_member(const struct peers *peers, X509 *certificate, uint8_t member)
{
    return names(certificate, peers->options.names[member]) || names(certificate, peers->options.zones[member]);
}

// Whoever it says that it is, so that the trouble is told under that name.
static uint8_t claimed(const struct peers *peers, X509 *certificate)
{
    for (uint8_t i = 0; certificate != NULL && i < peers->options.members; i++)
        if (i != peers->options.self && names(certificate, peers->options.names[i]))
            return i;
    return PEER_NONE;
}

static int on_verify(int good, X509_STORE_CTX *store)
{
    if (good)
        return 1;
    SSL *ssl = X509_STORE_CTX_get_ex_data(store, SSL_get_ex_data_X509_STORE_CTX_idx());
    struct link *link = SSL_get_app_data(ssl);
    int error = X509_STORE_CTX_get_error(store);
    X509 *certificate = X509_STORE_CTX_get_current_cert(store);
    char subject[128], date[32] = "";
    subject_of(certificate, subject, sizeof(subject));
    if (error == X509_V_ERR_CERT_HAS_EXPIRED && certificate != NULL)
        date_of(X509_get0_notAfter(certificate), date, sizeof(date));
    else if (error == X509_V_ERR_CERT_NOT_YET_VALID && certificate != NULL)
        date_of(X509_get0_notBefore(certificate), date, sizeof(date));
    snprintf(link->refused, sizeof(link->refused),
             "their certificate %s is not taken: %s%s%s (trusted is what %s signed)", subject,
             X509_verify_cert_error_string(error), date[0] != '\0' ? ", " : "", date, link->peers->options.tls_ca);
    if (link->peer == PEER_NONE)
        link->peer = claimed(link->peers, X509_STORE_CTX_get0_cert(store));
    return 0;
}

static void dns_names_of(X509 *certificate, char *text, size_t size)
{
    size_t used = 0;
    text[0] = '\0';
    GENERAL_NAMES *all = X509_get_ext_d2i(certificate, NID_subject_alt_name, NULL, NULL);
    for (int i = 0; all != NULL && i < sk_GENERAL_NAME_num(all); i++) {
        const GENERAL_NAME *name = sk_GENERAL_NAME_value(all, i);
        if (name->type != GEN_DNS || used >= size)
            continue;
        int wrote = snprintf(text + used, size - used, "%s%.*s", used > 0 ? ", " : "",
                             ASN1_STRING_length(name->d.dNSName), (const char *)ASN1_STRING_get0_data(name->d.dNSName));
        used += wrote > 0 ? (size_t)wrote : 0;
    }
    GENERAL_NAMES_free(all);
    if (text[0] == '\0')
        snprintf(text, size, "nobody");
}

bool tls_names(struct link *link, uint8_t member, char *why)
{
    X509 *certificate = SSL_get0_peer_certificate(link->ssl);
    if (certificate != NULL && names_member(link->peers, certificate, member))
        return true;
    char found[160] = "nobody";
    if (certificate != NULL)
        dns_names_of(certificate, found, sizeof(found));
    snprintf(why, WHY_MAX, "their certificate names %s; it must have the DNS name %s or %s", found,
             link->peers->options.names[member], link->peers->options.zones[member]);
    return false;
}

// ---- contexts

static bool load(SSL_CTX *context, const struct peers_options *options, struct sl_error *err)
{
    if (!tls_files_load(context, options->tls_certificate, options->tls_key, err))
        return false;
    return SSL_CTX_load_verify_locations(context, options->tls_ca, NULL) == 1 ||
           tls_files_fail(err, "ca", options->tls_ca);
}

static SSL_CTX *context_new(const struct peers_options *options, struct sl_error *err)
{
    ERR_clear_error();
    SSL_CTX *context = SSL_CTX_new(TLS_method());
    if (context == NULL) {
        sl_fail(err, SL_E_NO_MEMORY, "a TLS context");
        return NULL;
    }
    SSL_CTX_set_min_proto_version(context, TLS1_3_VERSION);
    SSL_CTX_set_options(context, SSL_OP_NO_TICKET | SSL_OP_NO_COMPRESSION | SSL_OP_NO_RENEGOTIATION);
    SSL_CTX_set_num_tickets(context, 0);
    SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_OFF);
    SSL_CTX_set_max_early_data(context, 0);
    // Output waits in an evbuffer, which may move what it holds, and grows between two attempts.
    SSL_CTX_set_mode(context, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    SSL_CTX_set_verify(context, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, on_verify);
    if (load(context, options, err))
        return context;
    SSL_CTX_free(context);
    return NULL;
}

bool tls_check_files(const struct peers_options *options, struct sl_error *err)
{
    SSL_CTX *context = context_new(options, err);
    if (context == NULL)
        return false;
    if (tls_files_expired(context))
        sl_logf(SL_WARN, "peers", "this node's certificate has expired: no peer will take it",
                SL_STR("file", options->tls_certificate));
    SSL_CTX_free(context);
    return true;
}

bool tls_begin(struct link *link, char *why)
{
    struct sl_error err;
    SSL_CTX *context = context_new(&link->peers->options, &err);
    if (context == NULL) {
        snprintf(why, WHY_MAX, "this node's own %.480s", err.text);
        return false;
    }
    link->ssl = SSL_new(context);
    SSL_CTX_free(context); // the SSL holds it
    if (link->ssl == NULL || SSL_set_fd(link->ssl, link->fd) != 1) {
        snprintf(why, WHY_MAX, "no memory for TLS");
        return false;
    }
    SSL_set_app_data(link->ssl, link);
    if (link->dialled)
        SSL_set_connect_state(link->ssl);
    else
        SSL_set_accept_state(link->ssl);
    return true;
}

// ---- bytes

static void explain_alert(const struct link *link, int alert, char *why)
{
    const char *what = alert == ALERT_CERTIFICATE_REQUIRED ? "it got none" : SSL_alert_desc_string_long(alert);
    switch (alert) {
    case SSL_AD_BAD_CERTIFICATE:
    case SSL_AD_UNSUPPORTED_CERTIFICATE:
    case SSL_AD_CERTIFICATE_REVOKED:
    case SSL_AD_CERTIFICATE_EXPIRED:
    case SSL_AD_CERTIFICATE_UNKNOWN:
    case SSL_AD_UNKNOWN_CA:
    case SSL_AD_ACCESS_DENIED:
    case ALERT_CERTIFICATE_REQUIRED:
        snprintf(why, WHY_MAX, "the other end does not take this node's certificate %s: %s",
                 link->peers->options.tls_certificate, what);
        return;
    default:
        snprintf(why, WHY_MAX, "the other end stopped TLS: %s", what);
    }
}

static void explain(const struct link *link, char *why)
{
    unsigned long code = ERR_peek_error();
    int reason = ERR_GET_REASON(code);
    const char *text = ERR_reason_error_string(code);
    if (link->refused[0] != '\0')
        snprintf(why, WHY_MAX, "%s", link->refused);
    else if (ERR_GET_LIB(code) == ERR_LIB_SSL && reason >= SSL_AD_REASON_OFFSET)
        explain_alert(link, reason - SSL_AD_REASON_OFFSET, why);
    else if (reason == SSL_R_PEER_DID_NOT_RETURN_A_CERTIFICATE)
        snprintf(why, WHY_MAX, "the other end shows no certificate");
    else if (reason == SSL_R_WRONG_VERSION_NUMBER || reason == SSL_R_HTTP_REQUEST)
        snprintf(why, WHY_MAX, "the other end does not speak TLS: ha.tls must be on at all nodes, or at none");
    else if (reason == SSL_R_UNSUPPORTED_PROTOCOL)
        snprintf(why, WHY_MAX, "the other end does not speak TLS 1.3");
    else
        snprintf(why, WHY_MAX, "TLS: %s", text != NULL ? text : "unknown error");
}

// What a call that did not succeed means.
static enum link_io outcome(struct link *link, int result, char *why)
{
    int saved = errno;
    switch (SSL_get_error(link->ssl, result)) {
    case SSL_ERROR_WANT_READ:
        return IO_AGAIN;
    case SSL_ERROR_WANT_WRITE:
        link->tls_wants_write = true;
        return IO_AGAIN;
    case SSL_ERROR_ZERO_RETURN:
        return IO_END;
    case SSL_ERROR_SYSCALL:
        if (ERR_peek_error() == 0) {
            snprintf(why, WHY_MAX, "%s", saved != 0 ? strerror(saved) : "the connection was cut");
            link->tls_broken = true;
            return saved != 0 ? IO_FAILED : IO_END;
        }
        break;
    case SSL_ERROR_SSL:
        // Cut off without a word: what a process does that dies.
        if (ERR_GET_REASON(ERR_peek_error()) == SSL_R_UNEXPECTED_EOF_WHILE_READING) {
            link->tls_broken = true;
            return IO_END;
        }
        break;
    default:
        break;
    }
    explain(link, why);
    ERR_clear_error();
    link->tls_broken = true;
    return IO_FAILED;
}

enum link_io tls_handshake(struct link *link, char *why)
{
    ERR_clear_error();
    errno = 0;
    int result = SSL_do_handshake(link->ssl);
    return result == 1 ? IO_DONE : outcome(link, result, why);
}

enum link_io tls_read(struct link *link, void *bytes, size_t room, size_t *length, char *why)
{
    ERR_clear_error();
    errno = 0;
    int result = SSL_read_ex(link->ssl, bytes, room, length);
    return result == 1 ? IO_DONE : outcome(link, result, why);
}

enum link_io tls_write(struct link *link, const void *bytes, size_t length, size_t *written, char *why)
{
    ERR_clear_error();
    errno = 0;
    int result = SSL_write_ex(link->ssl, bytes, length, written);
    return result == 1 ? IO_DONE : outcome(link, result, why);
}

void tls_end(struct link *link)
{
    if (link->ssl == NULL)
        return;
    ERR_clear_error();
    if (SSL_is_init_finished(link->ssl) && !link->tls_broken)
        SSL_shutdown(link->ssl); // a word of farewell if there is room for it; nobody waits for an answer
    SSL_free(link->ssl);
    ERR_clear_error();
    link->ssl = NULL;
}
