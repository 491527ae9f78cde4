// The kernel as a Python module: arrays that `compiled.py` has made and checked go in, and are filled.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <memory>
#include <vector>

#include "kernel.hpp"

namespace nb = nanobind;
using namespace aria;

template <class T> using In = nb::ndarray<const T, nb::c_contig, nb::device::cpu>;
template <class T> using Out = nb::ndarray<T, nb::c_contig, nb::device::cpu>;

// Defines a function that takes arrays as they are: an implicit conversion would fill a copy, and nobody would see it.
template <class F, class R, class... A> void define(nb::module_ &m, const char *name, F f, R (F::*)(A...) const) {
  m.def(name, f, ((void)sizeof(A), nb::arg().noconvert())...);
}
template <class F> void define(nb::module_ &m, const char *name, F f) { define(m, name, f, &F::operator()); }

NB_MODULE(_core, m) {
  define(m, "stream_key", [](u64 seed, u64 stream, u64 round) { return stream_key(seed, stream, round); });
  define(m, "uniforms", [](u64 key, Out<double> out) {
    for (std::size_t i = 0; i < out.size(); ++i) out.data()[i] = uniform(word(key, i));
  });
  define(m, "exp", [](In<double> x, Out<double> out) {
    for (std::size_t i = 0; i < x.size(); ++i) out.data()[i] = exponential(x.data()[i]);
  });
  define(m, "log", [](In<double> x, Out<double> out) {
    logarithms(i64(x.size()), x.data(), out.data());
  });
  define(m, "positions", [](u64 seed, In<i64> regions, In<i64> nth, In<i64> sizes, Out<i64> out) {
    for (std::size_t i = 0; i < regions.size(); ++i) {
      Visit v = visit(mix(seed), regions.data()[i], nth.data()[i], sizes.data()[i]);
      out.data()[i] = 0;
      land(&v, 1, out.data() + i);
    }
  });

  // ---- weights and shares
  define(m, "weigh_all", [](Out<double> score, Out<double> w, Out<double> warm, Out<double> frozen, In<double> base, double shift) {
    weigh_all({score.data(), w.data(), warm.data(), frozen.data()}, i64(score.size()), base.data(), shift);
  });
  define(m, "weigh", [](Out<double> score, Out<double> w, Out<double> warm, Out<double> frozen, In<double> base, double shift, In<i64> regions, In<double> scores) {
    weigh({score.data(), w.data(), warm.data(), frozen.data()}, base.data(), shift, i64(regions.size()), regions.data(), scores.data());
  });
  define(m, "block_sums", [](In<double> padded, Out<double> sums) {
    for (std::size_t b = 0; b < sums.size(); ++b) sums.data()[b] = sum64(padded.data() + b * BLOCK);
  });
  define(m, "probabilities", [](In<double> q, In<double> q_sums, In<double> x, In<double> warm, In<double> frozen, double cold, double exploration, Out<double> p) {
    probabilities({i64(p.size()), q.data(), q_sums.data(), x.data(), warm.data(), frozen.data(), cold, exploration}, p.data());
  });
  define(m, "water", [](In<double> w, double cold, In<double> s, double scale, double guess, Out<double> x, Out<double> sums) {
    unmarked(i64(w.size()), w.data(), cold, x.data());
    return water(i64(w.size()), s.data(), scale, guess, x.data(), sums.data());
  });

  // ---- a draw
  define(m, "link", [](In<i64> held, Out<i64> visits, Out<i64> last, Out<i32> next, Out<i32> prev) {
    std::vector<i64> order(held.size());
    link({visits.data(), last.data(), next.data(), prev.data()}, i64(last.size()), i64(held.size()), held.data(), order.data());
  });
  // clock: {rounds, draws} that the cursors have gone through. It moves with them: whoever finds another number in it
  // than expected knows that the call before never came to its end.
  define(m, "draw", [](u64 seed, u64 round, i64 gap, In<i64> chosen, i64 last_held, In<i64> offsets, In<double> q, In<double> q_sums, In<double> x, In<double> warm, In<double> frozen,
                   double cold, double exploration, Out<i64> visits, Out<i64> last, Out<i32> next, Out<i32> prev, Out<i64> clock, Out<i64> ints, Out<double> reals) {
    const i64 n = i64(ints.size()) / 2, K = i64(offsets.size()) - 1;
    i64 forced = 0;
    if (n > 0) {
      std::vector<i32> places(std::size_t(2 * n));
      const Shares S{K, q.data(), q_sums.data(), x.data(), warm.data(), frozen.data(), cold, exploration};
      const Cursors C{visits.data(), last.data(), next.data(), prev.data()};
      forced = draw({offsets.data(), seed, last_held}, S, C, n, round, clock.data()[1], gap, chosen.size() ? chosen.data() : nullptr, places.data(), {ints.data(), ints.data() + n, reals.data(), reals.data() + n});
      ++clock.data()[1];
    }
    ++clock.data()[0];
    return forced;
  });

  // ---- feedback
  define(m, "aggregate", [](In<i64> regions, In<double> losses, Out<i64> visited, Out<double> sums) {
    const i64 n = i64(regions.size());
    std::vector<u64> room(static_cast<std::size_t>(2 * n));
    i64 dropped = 0;
    double *const out = sums.data();
    const i64 m = aggregate(n, regions.data(), losses.data(), room.data(), {visited.data(), out, out + n, out + 2 * n}, dropped);
    return nb::make_tuple(m, dropped);
  });
  define(m, "variation", [](In<double> count, In<double> mean, In<double> m2, In<double> before, Out<double> cv2) {
    variation(i64(count.size()), count.data(), mean.data(), m2.data(), before.data(), cv2.data());
  });
  define(m, "ema_update", [](In<double> count, In<double> mean, double clock, double rate, bool per_visit, Out<double> rows) {
    ema_update(i64(count.size()), count.data(), mean.data(), clock, rate, per_visit, rows.data());
  });
  define(m, "bank_update", [](In<double> rows, In<double> read, In<double> count, In<double> mean, In<double> m2, In<double> cv2, double clock, In<double> decay, In<double> tanh, double discount,
                          double clip, Out<double> new_rows, Out<double> new_read, Out<double> new_cv2) {
    const i64 n = i64(count.size()), members = i64(decay.size());
    const std::unique_ptr<double[]> room(new double[std::size_t(bank_room(members, n))]);
    std::copy(cv2.data(), cv2.data() + 2, new_cv2.data());
    bank_update({members, decay.data(), tanh.data(), discount, clip}, n, count.data(), mean.data(), m2.data(), clock, {nullptr, rows.data(), read.data(), new_rows.data(), new_read.data()}, new_cv2.data(), room.get());
  });
  // visited [n], reals [5, n] (count, mean, m2, error, score), belief [n, 2] and the new rows [n, ...] are filled as far
  // as there are regions with losses. Returns `Facts`.
  const auto learnt_in = [](Out<i64> &visited, Out<double> &reals, Out<double> &belief) {
    const i64 n = i64(visited.size());
    double *const out = reals.data();
    return Learnt{{visited.data(), out, out + n, out + 2 * n}, belief.data(), out + 3 * n, out + 4 * n};
  };
  const auto told = [](const Facts &facts) { return nb::make_tuple(facts.m, facts.dropped, facts.usable, facts.lowest, facts.top); };
  define(m, "learn_ema", [learnt_in, told](In<i64> regions, In<double> losses, In<double> rows, In<double> cv2, double clock, double rate, bool per_visit, double exponent, Out<i64> visited, Out<double> reals,
                                 Out<double> belief, Out<double> new_rows, Out<double> new_cv2) {
    const i64 n = i64(regions.size());
    std::vector<u64> room(std::size_t(2 * n));
    std::vector<double> before(static_cast<std::size_t>(n));
    const Learnt L = learnt_in(visited, reals, belief);
    double *const now = new_rows.data();
    std::copy(cv2.data(), cv2.data() + 2, new_cv2.data());
    const auto update = [&](i64 count) {
      for (i64 i = 0; i < count; ++i) {
        const double *const row = rows.data() + 6 * visited.data()[i];
        std::copy(row, row + 6, now + 6 * i);
        before[std::size_t(i)] = row[1] > 0 ? row[0] / (row[1] > TINY ? row[1] : TINY) : NAN;
      }
      variation(count, L.round.count, L.round.mean, L.round.m2, before.data(), new_cv2.data());
      ema_update(count, L.round.count, L.round.mean, clock, rate, per_visit, now);
    };
    const auto read = [&](i64 i, double &mean, double &count) {
      const double *const row = now + 6 * i, weight = row[1];
      mean = row[0] / (weight > TINY ? weight : TINY);
      count = weight * weight / (row[2] > TINY ? row[2] : TINY);
    };
    return told(learn(n, regions.data(), losses.data(), room.data(), L, new_cv2.data(), exponent, update, read));
  });
  define(m, "learn_bank", [learnt_in, told](In<i64> regions, In<double> losses, In<double> rows, In<double> read, In<double> cv2, double clock, In<double> decay, In<double> tanh, double discount, double clip,
                                  double exponent, Out<i64> visited, Out<double> reals, Out<double> belief, Out<double> new_rows, Out<double> new_read, Out<double> new_cv2) {
    const i64 n = i64(regions.size()), members = i64(decay.size());
    std::vector<u64> room(std::size_t(2 * n));
    const std::unique_ptr<double[]> aside(new double[std::size_t(bank_room(members, n))]);
    const Learnt L = learnt_in(visited, reals, belief);
    std::copy(cv2.data(), cv2.data() + 2, new_cv2.data());
    const auto update = [&](i64 count) {
      bank_update({members, decay.data(), tanh.data(), discount, clip}, count, L.round.count, L.round.mean, L.round.m2, clock, {visited.data(), rows.data(), read.data(), new_rows.data(), new_read.data()},
                  new_cv2.data(), aside.get());
    };
    const auto read_row = [&](i64 i, double &mean, double &count) {
      mean = new_read.data()[3 * i];
      count = new_read.data()[3 * i + 1];
    };
    return told(learn(n, regions.data(), losses.data(), room.data(), L, new_cv2.data(), exponent, update, read_row));
  });
  define(m, "read_out", [](In<double> mean, In<double> count, In<double> age, In<double> cv2, Out<double> out) {
    const i64 n = i64(count.size());
    read_out(n, mean.data(), count.data(), age.data(), cv2.data(), out.data(), out.data() + n, out.data() + 2 * n);
  });
  define(m, "profile_update", [](In<i64> bins, In<double> losses, In<double> weights, double log_keep, Out<double> total, Out<double> weight) {
    std::vector<double> sums(3 * total.size());
    profile_update(i64(bins.size()), i64(total.size()), bins.data(), losses.data(), weights.data(), log_keep, sums.data(), total.data(), weight.data());
  });
  define(m, "usable", [](In<double> mean, In<double> error, In<double> count) { return usable(i64(count.size()), mean.data(), error.data(), count.data()); });
  define(m, "borrowed", [](In<i64> regions, In<double> news, In<double> belief, In<double> sums) {
    return borrowed(i64(belief.size()) / 2, i64(regions.size()), regions.data(), news.data(), belief.data(), sums.data());
  });

  define(m, "sum_beliefs", [](In<double> belief, Out<double> sums) {
    for (i64 b = 0; b < blocks(i64(belief.size()) / 2); ++b) sum_beliefs(i64(belief.size()) / 2, b, belief.data(), sums.data());
  });

  // ---- what changes a state: all of it or, if an argument is not what it should be, nothing
  struct Copy {
    char *target;
    const char *values;
    std::size_t bytes; // of a row of the target
  };
  // Of a pair (target, values), arrays of one type whose rows are of one size.
  const auto copy_of = [](nb::handle pair, std::size_t rows_there, std::size_t rows_here) {
    const auto target = nb::cast<nb::ndarray<nb::c_contig, nb::device::cpu>>(pair[0], false);
    const auto values = nb::cast<nb::ndarray<nb::ro, nb::c_contig, nb::device::cpu>>(pair[1], false);
    if (target.dtype() != values.dtype() || target.size() / rows_there * rows_here != values.size()) throw nb::value_error("expected an array of the target's size and type");
    return Copy{static_cast<char *>(target.data()), static_cast<const char *>(values.data()), target.nbytes() / rows_there};
  };
  // All values are taken before the first target is filled: some may be targets, too.
  const auto fill = [](const std::vector<Copy> &copies) {
    std::vector<char> values;
    for (const Copy &c : copies) values.insert(values.end(), c.values, c.values + c.bytes);
    const char *from = values.data();
    for (const Copy &c : copies) {
      std::memcpy(c.target, from, c.bytes);
      from += c.bytes;
    }
  };
  // pairs: (target, values), filled whole.
  define(m, "replace", [copy_of, fill](nb::list pairs) {
    std::vector<Copy> copies;
    for (nb::handle pair : pairs) copies.push_back(copy_of(pair, 1, 1));
    fill(copies);
  });
  // Closes a round. rows: pairs (target [K, ...], values [m, ...]) for `regions`; whole: pairs that are filled whole.
  // counters and scalars: see state.py.
  define(m, "store", [copy_of, fill](In<i64> regions, nb::list rows, nb::list whole, In<double> news, Out<double> belief, Out<double> belief_sums, In<i64> drawn, Out<i64> visits, Out<i64> last,
                               Out<i64> counters, i64 dropped, i64 forced, i64 drawn_rows, i64 data_rows, Out<double> scalars, double recent, double size, double level) {
    const i64 K = i64(visits.size()), n = i64(regions.size());
    std::vector<Copy> by_row, by_array;
    for (nb::handle pair : rows) by_row.push_back(copy_of(pair, visits.size(), regions.size()));
    for (nb::handle pair : whole) by_array.push_back(copy_of(pair, 1, 1));
    for (const Copy &c : by_row)
      for (i64 i = 0; i < n; ++i) std::memcpy(c.target + std::size_t(regions.data()[i]) * c.bytes, c.values + std::size_t(i) * c.bytes, c.bytes);
    fill(by_array);
    enum { ROUND, DRAWS, DROPPED, FORCED, DRAWN, DATA_ROWS, VISITED }; // as in state.py
    i64 *const count = counters.data();
    for (i64 i = 0; i < n; ++i) count[VISITED] += belief.data()[2 * regions.data()[i] + 1] == 0;
    believe(K, n, regions.data(), news.data(), belief.data(), belief_sums.data());
    for (std::size_t j = 0; j < drawn.size(); ++j) {
      ++visits.data()[drawn.data()[j]];
      last.data()[drawn.data()[j]] = count[DRAWS];
    }
    count[ROUND] += 1;
    count[DRAWS] += drawn.size() > 0;
    count[DROPPED] += dropped;
    count[FORCED] += forced;
    count[DRAWN] = drawn_rows;
    count[DATA_ROWS] = data_rows;
    scalars.data()[0] = recent;
    scalars.data()[1] = size;
    scalars.data()[2] = level;
  });
}
