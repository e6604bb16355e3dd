#include "bench/load.h"

#include "base/clock.h"

#include <inttypes.h>
#include <stdio.h>
#include <sys/resource.h>

int64_t load_cpu_us(void)
{
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return (usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * INT64_C(1000000) + usage.ru_utime.tv_usec +
           usage.ru_stime.tv_usec;
}

static double ms(uint64_t ns)
{
    return (double)ns / (double)SL_NS_PER_MS;
}

static double seconds(int64_t ns)
{
    return (double)ns / (double)SL_NS_PER_S;
}

static double per(double amount, double count)
{
    return count > 0 ? amount / count : 0;
}

void load_report_interval(struct load *load)
{
    int64_t length_ns = load->options.interval_ns + load->now_ns - load->interval_end_ns;
    const struct load_counts *counts = &load->counts;
    fprintf(load->live,
            "{\"at_s\":%.2f,\"mono_ns\":%" PRId64 ",\"requests\":%" PRIu64 ",\"retries\":%" PRIu64
            ",\"failed\":%" PRIu64 ",\"waiting\":%zu,\"acked\":%" PRIu64 ",",
            seconds(load->now_ns - load->start_ns), load->now_ns, counts->requests - load->interval_requests,
            counts->retries - load->interval_retries, load->interval_failed, load->waiting_count, counts->acked);
    fprintf(load->live,
            "\"acked_per_second\":%.0f,\"unknown\":%" PRIu64 ",\"outstanding\":%" PRIu32 ",\"connections\":%" PRIu32
            ",\"p50_ms\":%.3f,\"p99_ms\":%.3f,\"max_ms\":%.3f}\n",
            per((double)(load->counts.acked - load->interval_acked), seconds(length_ns)), load->interval_unknown,
            load->outstanding, load_connections_up(load), ms(latency_quantile_ns(&load->interval_latency, 0.5)),
            ms(latency_quantile_ns(&load->interval_latency, 0.99)), ms(load->interval_latency.max_ns));
    latency_reset(&load->interval_latency);
    load->interval_acked = load->counts.acked;
    load->interval_unknown = load->interval_failed = 0;
    load->interval_requests = counts->requests;
    load->interval_retries = counts->retries;
    fflush(load->live); // for who follows the file
    load->interval_end_ns = load->now_ns + load->options.interval_ns;
}

static void print_counts(const struct load *load)
{
    const struct load_counts *counts = &load->counts;
    printf("\"requests\":%" PRIu64 ",\"events\":%" PRIu64 ",\"acked\":%" PRIu64 ",\"refused\":%" PRIu64
           ",\"open\":%" PRIu64,
           counts->requests, counts->events, counts->acked, counts->refused, counts->open);
    printf(",\"again\":%" PRIu64, counts->again);
    printf(",\"accepted\":%" PRIu64 ",\"duplicates\":%" PRIu64 ",\"quarantined\":%" PRIu64, counts->accepted,
           counts->duplicates, counts->quarantined);
    const char *comma = "";
    printf(",\"status\":{");
    for (size_t status = 0; status < sizeof(counts->status) / sizeof(counts->status[0]); status++) {
        if (counts->status[status] == 0)
            continue;
        printf("%s\"%zu\":%" PRIu64, comma, status, counts->status[status]);
        comma = ",";
    }
    printf("},\"errors\":{");
    for (size_t cause = 0; cause < LOAD_CAUSE_COUNT; cause++)
        printf("%s\"%s\":%" PRIu64, cause == 0 ? "" : ",", load_cause_words[cause], counts->causes[cause]);
    uint64_t initial = load->options.connections;
    printf("},\"connects\":%" PRIu64 ",\"connect_failures\":%" PRIu64 ",\"reconnects\":%" PRIu64
           ",\"retries\":%" PRIu64,
           counts->connects, counts->connect_failures, counts->connects > initial ? counts->connects - initial : 0,
           counts->retries);
}

static void print_rates(const struct load *load)
{
    double length = seconds(load->measure_end_ns - load->measure_start_ns);
    double acked = (double)(load->measure_acked_end - load->measure_acked_start);
    double answered = (double)(load->measure_answered_end - load->measure_answered_start);
    printf(",\"seconds\":%.3f,\"events_per_second\":%.0f,\"requests_per_second\":%.0f", length, per(acked, length),
           per(answered, length));
    printf(",\"client_cpu_us_per_event\":%.3f", per((double)(load->cpu_end_us - load->cpu_start_us), acked));
    // The client or the server fell behind the rate. Their latency is in no percentile.
    printf(",\"not_sent\":%" PRIu64, load_requests_not_sent(load));
}

void load_report_summary(const struct load *load)
{
    const struct load_options *options = &load->options;
    printf("{\"run\":\"%s\",\"mode\":\"%s\",\"urls\":%zu,\"connections\":%" PRIu32 ",\"streams\":%" PRIu32
           ",\"events_per_request\":%" PRIu32 ",\"event_bytes\":%zu,\"keys\":%" PRIu32
           ",\"rate\":%.0f,\"ordered\":%s,\"retry\":%s,",
           options->run, options->rate > 0 ? "open" : "closed", options->url_count, options->connections,
           options->streams, options->batch, options->event_bytes, options->keys, options->rate,
           options->ordered ? "true" : "false", options->retry ? "true" : "false");
    print_counts(load);
    print_rates(load);
    const struct latency *latency = &load->latency;
    printf(",\"latency_ms\":{\"count\":%" PRIu64 ",\"mean\":%.3f,\"p50\":%.3f,\"p90\":%.3f,\"p99\":%.3f,\"p99_9\":%.3f"
           ",\"max\":%.3f}",
           latency->count, ms(latency_mean_ns(latency)), ms(latency_quantile_ns(latency, 0.5)),
           ms(latency_quantile_ns(latency, 0.9)), ms(latency_quantile_ns(latency, 0.99)),
           ms(latency_quantile_ns(latency, 0.999)), ms(latency->max_ns));
    if (load->source->report != NULL)
        load->source->report(load->source, stdout);
    bool acked = load->first_ack_ns != 0;
    printf(",\"first_ack_s\":%.4f,\"longest_ack_gap_s\":%.4f,\"longest_ack_gap_end_s\":%.3f}\n",
           acked ? seconds(load->first_ack_ns - load->start_ns) : -1.0, seconds(load->longest_gap_ns),
           load->longest_gap_end_ns != 0 ? seconds(load->longest_gap_end_ns - load->start_ns) : 0.0);
    fflush(stdout);
}
