"""The rules, and how each is switched off. `changes` are texts of `file` and what is put in their place; seeds begin
at `first`."""


def off(name, file, *changes, harmless=None, first=1):
    return {"name": name, "file": file, "changes": changes, "harmless": harmless, "first": first}


SABOTAGES = (
    # ---- answers
    off("ack-before-sync", "tests/sim/node.c",
        ("node->spool != NULL ? spool_synced_seq(node->spool) : 0", "node->submitted")),
    off("skip-the-peer", "tests/sim/node.c",
        ("positions.peer_synced = ha_peer_synced(&node->core, truth->id);",
         "positions.peer_synced = positions.synced;")),
    off("spool-tells-before-sync", "spool/segment.c",
        ("rc = storage->ops->fdatasync(storage->context, log->handle);\n"
         "    if (rc < 0)\n"
         "        return fail(log, err, rc, \"sync\");", "")),
    off("peer-answers-before-its-sync", "ha/replicate.c",
        ("say->last = stream->copies[core->options.self].end;", "say->last = stream->stored_end;")),
    off("ack-a-pending-duplicate", "tests/sim/node.c",
        ("    if (!room) {\n",
         "    if (room && known->stream - 1 != node->current) {\n"
         "        ledger_acknowledged(sim, event, known->stream - 1, known->seq, sim->ledger->events[event].level);\n"
         "        client_answer(sim, event, attempt, true);\n"
         "        return;\n"
         "    }\n"
         "    if (!room) {\n")),
    off("positions-outlive-the-session", "ha/watch.c",
        ("        stream->copies[peer] = (struct ha_copy){0};\n        stream->next[peer] = 0;\n", ""),
        ("bool first = !member->spoke;", "bool first = false;"),
        harmless="what a peer said was on its disk; one that comes without that disk does not list the stream, and "
                 "what is not listed is not held; tests/ha shows the rule"),
    # ---- copies
    off("a-gap-without-a-statement", "ha/replicate.c",
        ("if (gap && message->stated_through + 1 < message->first) {", "if (false) {")),
    off("the-base-is-not-durable", "tests/sim/shelf.c",
        ("    copy->base = base;\n    copy->end = base - 1;\n",
         "    copy->base = copy->base == 1 ? 1 : base;\n    copy->end = base - 1;\n")),
    off("no-repair-copies", "ha/replicate.c",
        ("return ha_unproduced(stream, own) && !written && offers(core, stream, peer);", "return false;")),
    off("nothing-is-sent-again", "ha/replicate.c",
        ("} else if (overdue) {", "} else if (false) {")),
    off("only-the-first-is-sent-again", "ha/replicate.c",
        ("bool alone = stream->probed[peer] && wanted == stream->waits_for[peer] + 1;", "bool alone = false;"),
        harmless="the rest comes as well, a record a second: later, not never. tests/ha shows the rule"),
    off("trim-what-is-not-produced", "ha/forget.c",
        ("uint64_t last = through < own->end ? through : own->end;", "uint64_t last = own->end;")),
    off("trim-by-one-lane", "ha/core.c",
        ("if (stream->lanes[i].seen.through < least)", "if (least == UINT64_MAX)")),
    off("a-base-tells-no-through", "ha/core.c",
        ("uint64_t produced = guard > base - 1 ? guard : base - 1;", "uint64_t produced = guard;")),
    # ---- taking over
    off("no-takeover", "ha/takeover.c",
        ("return may && (stream->kept || ha_suspect(core, stream, index));", "return may && stream->kept;")),
    off("the-first-taker-ends-it", "ha/watch.c",
        ("bool held = false;", "bool held = lane->seen.drainer.counter != 0 && "
         "lane->seen.drainer.member != stream->id.member;")),
    off("take-without-a-fence", "tests/sim/drain.c",
        ("of->epoch = kafka_init(sim, of->stream, of->lane);",
         "of->epoch = sim->kafka->ids[of->stream][of->lane].epoch;")),
    off("read-before-the-fence", "tests/sim/drain.c",
        ("finish(node, drain, HA_READ, HA_OK, kafka_progress(sim, of->stream, of->lane, stable), 0);",
         "finish(node, drain, HA_READ, HA_OK, node->seen[of->stream][of->lane], 0);")),
    off("read-to-the-stable-offset", "tests/sim/drain.c",
        ("|| stable < drain->high_watermark) {", ") {")),
    off("a-base-above-through-claims", "ha/takeover.c",
        ("bool may = core->now_ns >= lane->not_before_ns && own->base <= through + 1 &&",
         "bool may = core->now_ns >= lane->not_before_ns &&"),
        ("if (!rest || own->base > found->through + 1) {", "if (!rest) {"),
        harmless="with the base rule for copies (a-gap-without-a-statement) a base above through + 1 needs progress "
                 "that went back, and the model of Kafka loses none; tests/ha shows the rule"),
    off("unknown-is-taken-for-done", "tests/sim/drain.c",
        ("    finish(node, drain, HA_PRODUCE, HA_FAILED, (struct ha_progress){0}, 0);\n}",
         "    if (drain->begun)\n        after_commit(node, drain);\n    else\n"
         "        finish(node, drain, HA_PRODUCE, HA_FAILED, (struct ha_progress){0}, 0);\n}"),
        ("static void expired(", "static void after_commit(struct node *node, struct drain *drain);\n"
         "static void expired(")),
    off("unknown-is-taken-for-not-done", "tests/sim/drain.c",
        ("    finish(node, drain, HA_PRODUCE, HA_FAILED, (struct ha_progress){0}, 0);\n}",
         "    if (drain->begun) {\n        drain->epoch = kafka_init(sim, drain->stream, drain->lane);\n"
         "        produce_on(node, drain);\n    } else\n"
         "        finish(node, drain, HA_PRODUCE, HA_FAILED, (struct ha_progress){0}, 0);\n}")),
    off("progress-early", "tests/sim/drain.c",
        ("        struct call events = {.op = OP_EVENTS, .begin = true, .count = drain->count};\n"
         "        memcpy(events.seqs, drain->seqs, sizeof(events.seqs));\n"
         "        call(node, drain, events);\n"
         "        return;\n",
         "        call(node, drain,\n"
         "             (struct call){.op = OP_PROGRESS, .begin = true, .progress = own_progress(node, drain)});\n"
         "        return;\n"),
        ("        call(node, drain, (struct call){.op = OP_PROGRESS, .progress = own_progress(node, drain)});\n"
         "        break;\n    case OP_PROGRESS:\n        call(node, drain, (struct call){.op = OP_COMMIT});\n",
         "        drain->count = 0;\n        call(node, drain, (struct call){.op = OP_COMMIT});\n"
         "        break;\n    case OP_PROGRESS:\n        if (drain->count > 0 && !drain->closing) {\n"
         "            struct call events = {.op = OP_EVENTS, .count = drain->count};\n"
         "            memcpy(events.seqs, drain->seqs, sizeof(events.seqs));\n"
         "            call(node, drain, events);\n            break;\n        }\n"
         "        call(node, drain, (struct call){.op = OP_COMMIT});\n")),
    off("fenced-and-goes-on", "ha/takeover.c",
        ("bool look = done->result == HA_FENCED && lane->step != HA_STEP_LOOK;", "bool look = false;"),
        harmless="whoever was fenced and claims again fences the rival: it costs both time, and a living drainer is "
                 "seen to be one"),
    off("no-claim", "tests/sim/drain.c",
        ("        of->result = kafka_append_progress(sim, of->stream, of->lane, of->epoch, true, &of->progress);\n"
         "        if (of->result == KAFKA_OK)\n            apply_commit(sim, of, true);\n"
         "        break;\n    case OP_EVENTS:",
         "        break;\n    case OP_EVENTS:"),
        harmless="claims tell rivals from the coordinator's timeouts, and who drains; the fence alone keeps records "
                 "single, and who has lost what it was to drain gives up"),
    off("ignore-the-fence-mark", "ha/replicate.c",
        ("if (stream->fence_marked && from_owner && !message->repair) {", "if (false) {"),
        harmless="what a fenced owner still stores here is unproduced and claimed again; the mark ends that sooner"),
    off("a-refusal-is-ignored", "ha/watch.c",
        ("if (stream != NULL && stream->current)\n            ha_seal(core, stream);", "(void)stream;"),
        harmless="the owner finds out by its producer's fence; without Kafka it lets go after 30 s"),
    off("no-letting-go", "ha/seal.c",
        ("if (core->kafka_lost_ns == 0 ||", "if (true || core->kafka_lost_ns == 0 ||"),
        harmless="it is about when an owner's events come to Kafka, not whether: cut off, it holds them, and so does "
                 "another disk"),
    off("no-waiting-after-a-rival", "ha/takeover.c",
        ("    pause_lane(core, lane, lane->rival_wait_ns);\n", ""),
        harmless="turns and signs of life keep takers apart here; the wait is for more of them than three"),
    off("no-turns", "ha/watch.c",
        ("return core->now_ns - lane->suspect_since_ns >= distance * options->turn_ns;", "return true;"),
        harmless="two takers at once fence each other and wait with jitter: time, not records"),
    off("who-is-about-to-claim-is-not-let-go-first", "ha/watch.c",
        (" || (copy->flags & HA_ENTRY_TAKING)", ""),
        harmless="as above"),
    off("a-silence-is-told-with-the-next-heartbeat", "ha/core.c",
        (" || fell_silent(core)) {", ") {"),
        harmless="a takeover begins up to a heartbeat later"),
    off("the-other-peer-is-not-asked", "ha/watch.c",
        ("    return others_agree(core, drainer);", "    return true;"),
        harmless="a wrong suspicion costs a fenced producer and a sealed stream"),
    off("claim-what-is-alive", "ha/watch.c",
        ("if (!silent || held || !drainer_is_gone(core, stream, lane)) {", "if (false) {"),
        harmless="as above, all the time: takeovers by the hundred, and still each record once"),
    off("a-stopped-process-suspects", "ha/core.c",
        ("if (now_ns - core->now_ns > core->options.takeover_after_ns / 2) {", "if (false) {"),
        harmless="as above"),
    # ---- order
    off("no-order", "ha/watch.c",
        ("    struct ha_lane *lane = &stream->lanes[index];\n    uint32_t lane_id = stream->head.lane_ids[index];\n"
         "    // Until", "    return true;\n    struct ha_lane *lane = &stream->lanes[index];\n"
         "    uint32_t lane_id = stream->head.lane_ids[index];\n    // Until")),
    off("the-header-s-predecessor-is-ignored", "ha/watch.c",
        ("if (lane->seen.through > 0 || predecessor_done(core, stream, lane_id))", "if (true)"),
        first=5000200),  # it needs a taker that has no copy of the older stream: one seed of some two hundred
    off("older-streams-in-reach-are-ignored", "ha/watch.c",
        ("(stream->current && !core->ready) || older_unproduced(core, stream, lane_id)", "false"),
        harmless="the header's predecessor says the same, but for the first stream on a new disk: order across a lost "
                 "disk is kept while the peers are in reach, and not promised"),
    off("produce-before-ready", "ha/watch.c",
        ("(stream->current && !core->ready) || older_unproduced", "older_unproduced"),
        harmless="what only peers have of an older stream was never acknowledged by the process that took it, so its "
                 "place in the order is not promised; with the rule it has it all the same when they are in reach"),
    off("serve-before-ready", "ha/watch.c",
        ("    int64_t waited_ns = core->now_ns - core->started_ns;\n",
         "    core->ready = true;\n    return;\n    int64_t waited_ns = 0;\n"),
        harmless="an id that only peers know is appended again, which is the stated case (guarantees, a) and counted; "
                 "nothing acknowledged depends on it"),
    # ---- ids
    off("replicated-ids-are-not-remembered", "tests/sim/shelf.c",
        ("    node_remember(node, stream, action->first, action->last);\n", "")),
    off("ids-are-not-rebuilt", "tests/sim/node.c",
        ("if (ledger_at(sim, stream)->records[seq].known & (1u << node->index))", "if (false)")),
    off("appended-again-after-a-seal", "tests/sim/node.c",
        ("        node->reopen = !local_next(node);\n",
         "        node->reopen = !local_next(node);\n        memset(node->known, 0, sizeof(node->known));\n")),
    # ---- forgetting
    off("tombstone-when-alone-empty", "ha/forget.c",
        ("        if (!copy->there || !(copy->flags & HA_ENTRY_EMPTY) || copy->end != through)\n            return;\n",
         "        if (i == core->options.self && (!copy->there || !(copy->flags & HA_ENTRY_EMPTY)))\n"
         "            return;\n")),
    off("empty-is-not-durable", "tests/sim/shelf.c",
        ("    copy->guard = action->last;\n", "    copy->guard = 0;\n"),
        harmless="a copy that arrives so late that progress is gone needs a session that outlives its processes"),
)
