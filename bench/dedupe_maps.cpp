// Hash tables behind a mutex: the standard library's, which has a node an id, and Abseil's, which has none and is among
// the best that are to be had.
#include "bench/dedupe_tables.h"

#include <mutex>
#include <new>
#include <unordered_map>
#ifdef HAVE_ABSL
#include <absl/container/flat_hash_map.h>
#endif

namespace
{

struct Id {
    uint64_t words[2];
    bool operator==(const Id &other) const
    {
        return words[0] == other.words[0] && words[1] == other.words[1];
    }
};

struct Hash {
    size_t operator()(const Id &id) const
    {
        return id.words[0]; // a keyed hash already
    }
};

template <class Map> struct Locked {
    std::mutex mutex;
    Map map;

    static void *create(uint64_t ids)
    {
        auto *table = new (std::nothrow) Locked;
        if (table != nullptr)
            table->map.reserve(ids);
        return table;
    }

    static void destroy(void *table)
    {
        delete static_cast<Locked *>(table);
    }

    static table_result claim(void *opaque, const table_key *keys, size_t count)
    {
        auto *table = static_cast<Locked *>(opaque);
        table_result result = {};
        std::lock_guard<std::mutex> held(table->mutex);
        for (size_t i = 0; i < count; i++) {
            auto found = table->map.try_emplace(Id{{keys[i].id[0], keys[i].id[1]}}, keys[i].payload_hash);
            if (found.second)
                result.fresh++;
            else if (found.first->second == keys[i].payload_hash)
                result.duplicates++;
            else
                result.others++;
        }
        return result;
    }
};

double resident(void *)
{
    return 0;
}

template <class Map> constexpr table_ops ops(const char *name)
{
    return {name, true, Locked<Map>::create, Locked<Map>::destroy, Locked<Map>::claim, resident};
}

#ifdef HAVE_ABSL
const table_ops flat = ops<absl::flat_hash_map<Id, uint64_t, Hash>>("mutex, absl::flat_hash_map");
#endif

} // namespace

extern "C" {
const table_ops table_node_map = ops<std::unordered_map<Id, uint64_t, Hash>>("mutex, std::unordered_map");
#ifdef HAVE_ABSL
const table_ops *const table_flat = &flat;
#else
const table_ops *const table_flat = nullptr;
#endif
}
