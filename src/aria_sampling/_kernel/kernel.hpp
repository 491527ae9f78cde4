// A round of aria-sampling on plain arrays. There is no Python in here, no exception, and nothing is allocated.
//
// The order to read it in: numbers (random words, exp, log, sums), a draw, what losses say, and the water level.
//
// Same bits everywhere. Every number that decides a draw comes from + - * / sqrt of IEEE doubles in a fixed order, and
// from the exponential and the logarithm below. Compile with -ffp-contract=off. `reference.py` has the same
// functions in Python; the tests compare the two bit for bit.
//
// Names: K regions; n rows of a round; m regions that a round visits. Arrays called "padded" have a whole number of
// blocks of 64 entries, with zeros beyond K.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>

// The loops behind it have no memory in common from one turn to the next, so that the compiler makes vectors of them.
#if defined(__clang__)
#define ARIA_VECTOR _Pragma("clang loop vectorize(assume_safety)")
#elif defined(__GNUC__)
#define ARIA_VECTOR _Pragma("GCC ivdep")
#else
#define ARIA_VECTOR __pragma(loop(ivdep))
#endif

// A function behind it is compiled twice, for processors with and without AVX2, where the compiler can do that: vectors
// are longer, bits are the same.
#if defined(__GNUC__) && !defined(__clang__) && defined(__x86_64__) && defined(__linux__) && !defined(ARIA_NO_CLONES)
#define ARIA_CLONES __attribute__((target_clones("avx2", "default")))
#else
#define ARIA_CLONES
#endif

namespace aria {

using i64 = std::int64_t;
using i32 = std::int32_t;
using u64 = std::uint64_t;

constexpr i64 BLOCK = 64;            // regions whose weights are summed up together
constexpr int FEISTEL_ROUNDS = 10;   // with six, the successor of an item is visibly not uniform in small regions
constexpr double LOSS_LIMIT = 1e150; // from here on a loss counts as not finite: its square would overflow
constexpr double MOST_EXPONENT = 700.0;
constexpr double LEAST_WEIGHT = 1e-90; // a sum of weights that is less counts as 0: dividing by it might overflow

inline i64 blocks(i64 K) { return (K + BLOCK - 1) / BLOCK; }

// ---------------------------------------------------------------- random words
//
// Counter-based: a word is a function of its key and its number. Nothing is consumed, so nothing is replayed on resume.

constexpr u64 GAMMA = 0x9E3779B97F4A7C15u; // 2**64 over the golden ratio
constexpr u64 FACTOR_1 = 0xBF58476D1CE4E5B9u, FACTOR_2 = 0x94D049BB133111EBu, SALT = 0xD1B54A32D192ED03u;

// The finaliser of SplitMix64 (Steele, Lea, Flood 2014): a bijection that mixes all bits.
inline u64 mix(u64 x) {
  x ^= x >> 30;
  x *= FACTOR_1;
  x ^= x >> 27;
  x *= FACTOR_2;
  return x ^ (x >> 31);
}
inline u64 stream_key(u64 seed, u64 stream, u64 round) { return mix(mix(mix(seed) + stream) + round); }
inline u64 word(u64 key, u64 number) { return mix(key + (number + 1) * GAMMA); }
inline double uniform(u64 w) { return double(w >> 11) * 0x1p-53; } // in [0, 1), from the upper 53 bits
inline u64 below(u64 w, u64 n) { return std::min(u64(uniform(w) * double(n)), n - 1); }

// x / y. Processors divide 32-bit numbers in half the time.
inline u64 divided(u64 x, u64 y) { return (x | y) >> 32 ? x / y : u64(std::uint32_t(x) / std::uint32_t(y)); }

// Where in their regions the nth visits of n rows land, 0..size-1. In every cycle of `size` visits each position comes
// once.
//
// A keyed permutation that is computed, not stored: a mixed-radix Feistel network on pairs (a, b) of about sqrt(size)
// each. There may be a few more pairs than positions; a pair outside goes through the network again. Rows go through it
// side by side, since the steps of one wait for each other.
struct Visit {
  u64 key, size, left, right, a, b;
};
inline Visit visit(u64 mixed_seed, i64 region, i64 nth, i64 size) {
  Visit v;
  const u64 cycle = divided(u64(nth), u64(size)), x = u64(nth) - cycle * u64(size);
  v.size = u64(size);
  v.key = mix(mix(u64(region) + mixed_seed) + cycle * GAMMA);
  v.left = u64(std::sqrt(double(size)));
  v.left += v.left * v.left < v.size;
  v.right = divided(v.size + v.left - 1, v.left);
  v.a = divided(x, v.right);
  v.b = x - v.a * v.right;
  return v;
}
inline u64 step_of(const Visit &v, u64 half, u64 other, u64 radix, int step) {
  u64 h = (other + v.key) ^ (SALT * u64(step + 1));
  h *= FACTOR_1;
  h ^= h >> 32;
  h *= FACTOR_2;
  half += (h >> 32) * radix >> 32;     // a number below radix, from 32 bits
  return std::min(half, half - radix); // modulo radix: what is below 0 wraps to the largest numbers
}
constexpr i64 LANES = 8;
inline void network(Visit *v, i64 n) {
  for (int step = 0; step < FEISTEL_ROUNDS; step += 2) {
    for (i64 i = 0; i < n; ++i) v[i].a = step_of(v[i], v[i].a, v[i].b, v[i].left, step);
    for (i64 i = 0; i < n; ++i) v[i].b = step_of(v[i], v[i].b, v[i].a, v[i].right, step + 1);
  }
}
// Where n <= LANES visits land, added to what is in `out`.
inline void land(Visit *v, i64 n, i64 *out) {
  network(v, n);
  for (i64 i = 0; i < n; ++i) {
    while (v[i].a * v[i].right + v[i].b >= v[i].size) network(v + i, 1);
    out[i] += i64(v[i].a * v[i].right + v[i].b);
  }
}
// ---------------------------------------------------------------- exponential and logarithm, to within 2 ulp

// e**x, x taken into [-700, 700]. Free of branches, so that loops over it become vector instructions.
inline double exp_clamped(double x) {
  x = x < -MOST_EXPONENT ? -MOST_EXPONENT : x;
  x = x > MOST_EXPONENT ? MOST_EXPONENT : x;
  const double shift = 0x1.8p52; // adding it rounds to a whole number
  const double t = x * 1.4426950408889634 + shift, whole = t - shift;
  const double r = (x - whole * 0x1.62e42fefa0000p-1) - whole * 0x1.cf79abc9e3b3ap-40; // |r| <= log(2)/2
  const double r2 = r * r, r4 = r2 * r2;                                              // Estrin's scheme
  const double low = (1.0 + r) + r2 * (0.5 + r * (1.0 / 6));
  const double middle = (1.0 / 24 + r * (1.0 / 120)) + r2 * (1.0 / 720 + r * (1.0 / 5040));
  const double high = (1.0 / 40320 + r * (1.0 / 362880)) + r2 * (1.0 / 3628800 + r * (1.0 / 39916800));
  const double highest = 1.0 / 479001600 + r * (1.0 / 6227020800);
  const double value = low + r4 * (middle + r4 * (high + r4 * highest));
  u64 bits;
  std::memcpy(&bits, &t, 8);
  bits = (bits + 1023) << 52; // 2**whole
  double power;
  std::memcpy(&power, &bits, 8);
  return value * power;
}
inline double exponential(double x) { return x == -INFINITY ? 0.0 : exp_clamped(x); }

// log(x) of a normal number x > 0. With x = m * 2**e, m in [sqrt(1/2), sqrt(2)): e*log(2) + 2 atanh((m-1)/(m+1)). Free
// of branches, as exp_clamped is.
inline double log_normal(double x, double e = 0) {
  u64 bits;
  std::memcpy(&bits, &x, 8);
  u64 exponent = (bits >> 52) | 0x4330000000000000u; // as a double it is 2**52 more
  bits = (bits & 0xFFFFFFFFFFFFFu) | 0x3FF0000000000000u;
  double m, high;
  std::memcpy(&high, &exponent, 8);
  std::memcpy(&m, &bits, 8);
  e += high - (0x1p52 + 1023);
  const double large = m > 1.4142135623730951 ? 1.0 : 0.0;
  m = large > 0 ? m * 0.5 : m;
  e += large;
  // f is exact, and the rest is small: log(1 + f) = 2s + s R = f - (f*f/2 - s (f*f/2 + R)) as in Sun's fdlibm
  const double f = m - 1, s = f / (m + 1), s2 = s * s, half = 0.5 * f * f;
  double series = 1.0 / 21;
  series = series * s2 + 1.0 / 19;
  series = series * s2 + 1.0 / 17;
  series = series * s2 + 1.0 / 15;
  series = series * s2 + 1.0 / 13;
  series = series * s2 + 1.0 / 11;
  series = series * s2 + 1.0 / 9;
  series = series * s2 + 1.0 / 7;
  series = series * s2 + 1.0 / 5;
  series = series * s2 + 1.0 / 3;
  const double R = 2 * s2 * series;
  return e * 0x1.62e42fefa0000p-1 + (f - (half - (s * (half + R) + e * 0x1.cf79abc9e3b3ap-40)));
}
inline bool is_normal(double x) { return x >= 0x1p-1022 && x < INFINITY; }
// log(x); -infinity at 0, NaN below.
inline double logarithm(double x) {
  if (is_normal(x)) return log_normal(x);
  if (!(x > 0)) return x == 0 ? -INFINITY : NAN;
  return x == INFINITY ? x : log_normal(x * 0x1p54, -54); // subnormal
}
ARIA_CLONES static void logarithms(i64 n, const double *__restrict x, double *__restrict out) {
  ARIA_VECTOR
  for (i64 i = 0; i < n; ++i) out[i] = log_normal(x[i]);
  for (i64 i = 0; i < n; ++i)
    if (!is_normal(x[i])) out[i] = logarithm(x[i]);
}

// ---------------------------------------------------------------- sums by block
//
// The sum of a block is a function of its 64 members alone, whatever was summed before. So sums never drift, only the
// blocks that changed are summed again, and a resumed run has the same bits.

inline double sum64(const double *v) {
  double lane[8];
  for (int j = 0; j < 8; ++j) lane[j] = v[j];
  for (int i = 8; i < BLOCK; i += 8)
    for (int j = 0; j < 8; ++j) lane[j] += v[i + j];
  return ((lane[0] + lane[1]) + (lane[2] + lane[3])) + ((lane[4] + lane[5]) + (lane[6] + lane[7]));
}

// What the policy makes of regions, before it is normalised.
//
// A region that was visited has the weight base * exp(score - shift). One that never was ("cold", its score is NaN)
// has base * cold, where `cold` is one number for all of them: it can change every round at no cost. In `w` it stands
// as -base: the sign marks it, so that a draw need not look at the scores.
struct Weights {
  double *score;  // [K]
  double *w;      // padded
  double *warm;   // by block: sum of w over visited regions
  double *frozen; // by block: sum of base over cold regions
};

inline void sum_weights(const Weights &W, i64 b) {
  double warm[BLOCK], frozen[BLOCK];
  for (i64 i = 0; i < BLOCK; ++i) {
    const double w = W.w[b * BLOCK + i];
    warm[i] = w > 0 ? w : 0.0;
    frozen[i] = w < 0 ? -w : 0.0;
  }
  W.warm[b] = sum64(warm);
  W.frozen[b] = sum64(frozen);
}
inline double weight_of(double base, double score, double shift) {
  return std::isnan(score) ? -base : base * exponential(score - shift);
}
inline void weigh_all(const Weights &W, i64 K, const double *base, double shift) {
  for (i64 k = 0; k < K; ++k) W.w[k] = weight_of(base[k], W.score[k], shift);
  for (i64 b = 0; b < blocks(K); ++b) sum_weights(W, b);
}
// New scores of some regions, ascending.
inline void weigh(const Weights &W, const double *base, double shift, i64 m, const i64 *regions, const double *scores) {
  for (i64 i = 0; i < m; ++i) {
    const i64 k = regions[i];
    W.score[k] = scores[i];
    W.w[k] = weight_of(base[k], scores[i], shift);
  }
  for (i64 i = 0; i < m; ++i)
    if (i == 0 || regions[i] / BLOCK != regions[i - 1] / BLOCK) sum_weights(W, regions[i] / BLOCK);
}

// ---------------------------------------------------------------- shares of the coming draw
//
// p = (1 - exploration) * x / sum(x) + exploration * q; where every x is 0, or as good as, p = q.

struct Shares {
  i64 K;
  const double *q, *q_sums;                 // the target: padded, and by block
  // see Weights; after `water`, and after a cap, x are shares and nothing is marked as cold: frozen is 0
  const double *x, *warm, *frozen;
  double cold, exploration;

  double block_x(i64 b) const { return warm[b] + cold * frozen[b]; }
  double at(i64 k) const { return x[k] > 0 ? x[k] : cold * -x[k]; }
};
// p_k = scale * x_k + rest * q_k
struct Mixed {
  double scale, rest;
};
inline Mixed mixed(const Shares &S) {
  double total = 0;
  for (i64 b = 0; b < blocks(S.K); ++b) total += S.block_x(b);
  if (total > LEAST_WEIGHT) return {(1 - S.exploration) / total, S.exploration};
  return {0.0, 1.0};
}
inline void probabilities(const Shares &S, double *p) {
  const Mixed M = mixed(S);
  for (i64 k = 0; k < S.K; ++k) p[k] = M.scale * S.at(k) + M.rest * S.q[k];
}

// ---------------------------------------------------------------- a draw

// What the draws so far have left behind. `next` and `prev` link the regions in the order of (last visit, number), a
// ring through entry K: the regions that were left alone for longest come first.
struct Cursors {
  i64 *visits; // [K] draws from each region
  i64 *last;   // [K] number of the draw that visited it last; -1: none
  i32 *next, *prev;
};
inline void touch(const Cursors &C, i64 K, i64 k) { // to the end of the ring
  C.next[C.prev[k]] = C.next[k];
  C.prev[C.next[k]] = C.prev[k];
  const i32 tail = C.prev[K];
  C.next[tail] = i32(k);
  C.prev[k] = tail;
  C.next[k] = i32(K);
  C.prev[K] = i32(k);
}
// `held`: the regions with q > 0, ascending; `order`: room for as many.
inline void link(const Cursors &C, i64 K, i64 n_held, const i64 *held, i64 *order) {
  std::copy(held, held + n_held, order);
  std::sort(order, order + n_held, [&](i64 a, i64 b) { return C.last[a] != C.last[b] ? C.last[a] < C.last[b] : a < b; });
  i64 before = K;
  for (i64 i = 0; i <= n_held; ++i) {
    const i64 k = i < n_held ? order[i] : K;
    C.next[before] = i32(k);
    C.prev[k] = i32(before);
    before = k;
  }
}

// Which region each of m equally spaced points on the cumulated p lies in, ascending. A region gets floor(m p) or
// ceil(m p) points, m p on average over u. `last_held` is the last region with q > 0: rounding must not lose a point,
// nor give it to a region with p = 0.
inline void systematic(const Shares &S, const Mixed &M, i64 last_held, i64 m, double u, i32 *out) {
  const i64 n_blocks = blocks(S.K);
  double total = 0;
  for (i64 b = 0; b < n_blocks; ++b) total += M.scale * S.block_x(b) + M.rest * S.q_sums[b];
  const double step = total / double(m);
  double before = 0, point = u * step;
  i64 i = 0;
  for (i64 b = 0; b < n_blocks && i < m; ++b) {
    const bool final = b == n_blocks - 1;
    const double end = final ? INFINITY : before + (M.scale * S.block_x(b) + M.rest * S.q_sums[b]);
    double sum = before;
    i32 held = i32(last_held);
    const i64 stop = std::min((b + 1) * BLOCK, S.K);
    for (i64 k = b * BLOCK; k < stop && point < end && i < m; ++k) {
      const double p = M.scale * S.at(k) + M.rest * S.q[k];
      if (!(p > 0)) continue;
      sum += p;
      held = i32(k);
      for (; point < sum && point < end && i < m; point = (double(i) + u) * step) out[i++] = i32(k);
    }
    // a block may sum to more than its parts one by one: its last points are its last region's
    for (; point < end && i < m; point = (double(i) + u) * step) out[i++] = held;
    before = end;
  }
}

struct Pool {
  const i64 *offsets; // [K + 1] where each region begins in the order of the items
  u64 seed;
  i64 last_held;
};
struct Rows {
  i64 *places, *regions;
  double *probabilities, *weights;
};
// Draws n > 0 rows, moves the cursors, and returns how many regions were visited by force.
//
// A region with a gap of `gap` draws or more is drawn once for certain (at most n/2 of them, oldest first; gap 0:
// none); the others share what is left. So the effective p of a region is p * (n - forced)/n, and 1/n more where it was
// forced: unbiased as a mixture. `scratch`: room for 2 n; `draws`: non-empty draws so far.
// A row's place is one in the order of the items; the caller looks the item up. `chosen`: the regions of the rows,
// ascending, where they are decided already; else nullptr.
inline i64 draw(const Pool &P, const Shares &S, const Cursors &C, i64 n, u64 round, i64 draws, i64 gap, const i64 *chosen, i32 *scratch, const Rows &R) {
  const u64 key = stream_key(P.seed, 0, round);
  const i64 most = gap > 0 ? n / 2 : 0;
  i64 forced = 0;
  for (i32 k = C.next[S.K]; forced < most && k != i32(S.K) && C.last[k] <= draws - gap; k = C.next[k]) scratch[n - 1 - forced++] = k;
  const i64 m = n - forced;
  i32 *const due = scratch + m;
  std::sort(due, scratch + n);
  const Mixed M = mixed(S);
  if (chosen)
    for (i64 j = 0; j < m; ++j) scratch[j] = i32(chosen[j]);
  else
    systematic(S, M, P.last_held, m, uniform(word(key, 0)), scratch);

  i32 *const ascending = scratch + n;
  std::merge(scratch, due, due, scratch + n, ascending);
  for (i64 j = 0; j < n; ++j)
    if (j == 0 || ascending[j] != ascending[j - 1]) {
      C.last[ascending[j]] = draws;
      touch(C, S.K, ascending[j]);
    }

  for (i64 j = n - 1; j > 0; --j) // rows in random order, so that any part of them is a fair one (Fisher and Yates)
    std::swap(ascending[j], ascending[below(word(key, u64(j)), u64(j) + 1)]);
  const double share = double(m) / double(n);
  const u64 mixed_seed = mix(P.seed);
  Visit visits[LANES];
  for (i64 j = 0; j < n; ++j) {
    const i64 k = ascending[j];
    R.regions[j] = k;
    R.places[j] = P.offsets[k];
    visits[j % LANES] = visit(mixed_seed, k, C.visits[k]++, P.offsets[k + 1] - P.offsets[k]);
    if (j % LANES == LANES - 1 || j == n - 1) land(visits, j % LANES + 1, R.places + j / LANES * LANES);
    double p = (M.scale * S.at(k) + M.rest * S.q[k]) * share;
    if (forced && std::binary_search(due, scratch + n, i32(k))) p += 1.0 / double(n);
    R.probabilities[j] = p;
    R.weights[j] = S.q[k] / p;
  }
  return forced;
}

// ---------------------------------------------------------------- what losses say of their regions

struct Feedback {
  i64 *regions;              // [m], ascending
  double *count, *mean, *m2; // [m]: number of losses, their mean, their summed squared deviations from it
};
// Sorts n keys by their bits 32 and up, keys of equal bits as they stand, digit by digit. `aside`: room for n. Returns
// where they are then, `keys` or `aside`.
inline u64 *sorted(i64 n, u64 *keys, u64 *aside) {
  u64 most = 0;
  for (i64 i = 0; i < n; ++i) most |= keys[i];
  for (int shift = 32; shift < 64 && most >> shift; shift += 8) {
    i64 begin[257] = {0};
    for (i64 i = 0; i < n; ++i) ++begin[(keys[i] >> shift & 255) + 1];
    for (int digit = 1; digit < 256; ++digit) begin[digit] += begin[digit - 1];
    for (i64 i = 0; i < n; ++i) aside[begin[keys[i] >> shift & 255]++] = keys[i];
    std::swap(keys, aside);
  }
  return keys;
}
// Sums up rows by region, in the order of the rows: any split of a round into parts gives the same bits.
// `room`: for 2 n. Returns m; `dropped` counts losses that are not finite, or as good as.
inline i64 aggregate(i64 n, const i64 *regions, const double *losses, u64 *room, const Feedback &F, i64 &dropped) {
  i64 usable = 0;
  for (i64 j = 0; j < n; ++j)
    if (std::fabs(losses[j]) < LOSS_LIMIT) room[usable++] = (u64(regions[j]) << 32) | u64(j);
  dropped = n - usable;
  const u64 *const keys = sorted(usable, room, room + n);
  i64 m = 0;
  for (i64 begin = 0, end; begin < usable; begin = end, ++m) {
    const u64 region = keys[begin] >> 32;
    double sum = 0, squares = 0;
    for (end = begin; end < usable && keys[end] >> 32 == region; ++end) sum += losses[keys[end] & 0xFFFFFFFFu];
    const double mean = sum / double(end - begin);
    for (i64 i = begin; i < end; ++i) {
      const double d = losses[keys[i] & 0xFFFFFFFFu] - mean;
      squares += d * d;
    }
    F.regions[m] = i64(region);
    F.count[m] = double(end - begin);
    F.mean[m] = mean;
    F.m2[m] = squares;
  }
  return m;
}

// How much single losses scatter around their region's mean: the squared coefficient of variation, pooled over regions.
//
// From the spread inside the round where a region has two losses or more; else from the surprise against the estimate
// `before` (NaN: there was none). cv2: discounted sums of the evidence, and of the degrees of freedom behind it.
inline void variation(i64 m, const double *count, const double *mean, const double *m2, const double *before, double *cv2) {
  constexpr double RATE = 0.01, MOST = 100.0; // one wild loss must not blind the rest
  bool inside = false;
  for (i64 i = 0; i < m; ++i) inside |= count[i] > 1;
  double evidence = 0, freedom = 0;
  for (i64 i = 0; i < m; ++i) {
    double f, scale, square;
    if (inside) {
      f = count[i] - 1;
      scale = mean[i] * mean[i];
      square = m2[i];
    } else {
      f = std::isnan(before[i]) ? 0.0 : 1.0;
      scale = before[i] * before[i];
      square = (mean[i] - before[i]) * (mean[i] - before[i]);
    }
    if (!(f > 0 && scale > 0)) continue;
    evidence += std::min(square / (scale * f), MOST) * f;
    freedom += f;
  }
  if (!(freedom > 0)) return;
  cv2[0] = (1 - RATE) * cv2[0] + RATE * evidence;
  cv2[1] = (1 - RATE) * cv2[1] + RATE * freedom;
}

// What is believed of regions whose losses scatter in proportion to their mean: to mean, count and age the standard
// error. A region that was never visited (count 0) has mean NaN, and an infinite error and age.
constexpr double TINY = 1e-300;
inline void read_out(i64 m, const double *mean, const double *count, const double *age, const double *cv2, double *means, double *errors, double *ages) {
  const double spread = cv2[0] / cv2[1];
  for (i64 i = 0; i < m; ++i) {
    const bool cold = count[i] == 0;
    means[i] = cold ? NAN : mean[i];
    errors[i] = cold ? INFINITY : std::sqrt(spread / (count[i] > TINY ? count[i] : TINY)) * std::fabs(mean[i]);
    ages[i] = cold ? INFINITY : age[i] > 0 ? age[i] : 0.0; // a difference of clocks: rounding may take it below 0
  }
}
// Whether it can be so of regions with feedback: means are finite, counts above 0 and errors at least 0.
inline bool usable(i64 m, const double *mean, const double *error, const double *count) {
  bool good = true;
  for (i64 i = 0; i < m; ++i) good &= (std::fabs(mean[i]) < INFINITY) & (error[i] >= 0) & (count[i] > 0);
  return good;
}

// One moving average a region. A row: total, weight, squares of the weights, time, visits, losses.
inline void ema_update(i64 m, const double *count, const double *mean, double clock, double rate, bool per_visit, double *rows) {
  const double decay = logarithm(1 - rate); // of what one loss leaves of the past
  for (i64 i = 0; i < m; ++i, rows += 6) {
    const double n = count[i], keep = per_visit ? 1 - rate : exponential(decay * n), gain = 1 - keep;
    rows[0] = keep * rows[0] + gain * mean[i];
    rows[1] = keep * rows[1] + gain;
    rows[2] = keep * keep * rows[2] + gain * gain / n;
    rows[3] = keep * rows[3] + gain * clock;
    rows[4] += 1;
    rows[5] += n;
  }
}

// A bank of moving averages of different memory, mixed by how well each has predicted.
//
// State of a region, a row of [4][members]: mean, mean time, weight, and evidence against each member. What is read off
// it, a row of 3: mean, effective number of losses (0: never visited), mean time. All work is on the transpose, [4]
// [members][m], so that loops run over regions.
struct Bank {
  i64 members;
  const double *decay; // log of what one loss leaves of the past, negative
  const double *tanh;  // tanh(-decay / 2)
  double discount, clip;
};
// Columns of the transpose are so far apart: at a multiple of 4 kB they would drive each other out of the cache.
inline i64 bank_stride(i64 m) { return (m + 7) / 8 * 8 + 8; }
inline i64 bank_room(i64 members, i64 m) { return (4 * members + 7) * bank_stride(m); }

// From `rows` and `read` to the new ones; cv2: see `variation`, which takes its part first. `room`: for bank_room numbers.
struct BankRows {
  const i64 *at; // where the row of each region is, [m]; null: rows are those of the m regions
  const double *rows, *read;
  double *new_rows, *new_read;
};
ARIA_CLONES static void bank_update(const Bank &B, i64 m, const double *count, const double *y, const double *m2, double clock, const BankRows &R, double *cv2, double *room) {
  const i64 M = B.members, stride = bank_stride(m);
  double *const scratch = room + 4 * M * stride;
  double *const before = scratch, *const per = scratch + stride, *const least = scratch + 2 * stride;
  double *const total = scratch + 3 * stride, *const mean = scratch + 4 * stride, *const losses = scratch + 5 * stride;
  double *const when = scratch + 6 * stride;
  for (i64 i = 0; i < m; ++i) {
    const i64 at = R.at ? R.at[i] : i;
    for (i64 j = 0; j < 4 * M; ++j) room[j * stride + i] = R.rows[at * 4 * M + j];
    before[i] = R.read[3 * at + 1] > 0 ? R.read[3 * at] : NAN;
  }
  variation(m, count, y, m2, before, cv2);
  const double spread = cv2[0] / cv2[1];
  for (i64 i = 0; i < m; ++i) {
    per[i] = count[i] / (spread * before[i] * before[i]); // infinite where the estimate is 0, NaN where there is none
    least[i] = INFINITY;
    total[i] = mean[i] = losses[i] = when[i] = 0;
  }
  // evidence: the squared z-score of this round's mean under each member; 0 where it was exact, or nothing was predicted
  for (i64 j = 0; j < M; ++j) {
    const double *const average = room + j * stride;
    double *const evidence = room + (3 * M + j) * stride;
    ARIA_VECTOR
    for (i64 i = 0; i < m; ++i) {
      const double error = y[i] - average[i];
      double z = error * error * per[i];
      z = z < B.clip ? z : B.clip; // NaN becomes clip, and 0 below
      z = (error != 0) & (before[i] == before[i]) ? z : 0.0;
      evidence[i] = (1 - B.discount) * evidence[i] + z;
      least[i] = evidence[i] < least[i] ? evidence[i] : least[i];
    }
  }
  for (i64 j = 0; j < M; ++j) {
    double *const average = room + j * stride, *const time = room + (M + j) * stride;
    double *const weight = room + (2 * M + j) * stride;
    const double *const evidence = room + (3 * M + j) * stride;
    const double tanh = B.tanh[j], decay = B.decay[j];
    ARIA_VECTOR
    for (i64 i = 0; i < m; ++i) {
      const double keep = exp_clamped(decay * count[i]), gain = 1 - keep, w = keep * weight[i] + gain, rate = gain / w;
      const double trust = exp_clamped((least[i] - evidence[i]) * 0.5);
      average[i] += rate * (y[i] - average[i]);
      time[i] += rate * (clock - time[i]);
      weight[i] = w;
      total[i] += trust;
      mean[i] += trust * average[i];
      when[i] += trust * time[i];
      losses[i] += trust * w / ((2 - w) * tanh); // tanh(n rate/2) / tanh(rate/2), the effective number of n losses
    }
  }
  for (i64 i = 0; i < m; ++i) {
    R.new_read[3 * i] = mean[i] / total[i];
    R.new_read[3 * i + 1] = losses[i] / total[i];
    R.new_read[3 * i + 2] = when[i] / total[i];
    for (i64 j = 0; j < 4 * M; ++j) R.new_rows[i * 4 * M + j] = room[j * stride + i];
  }
}

// ---------------------------------------------------------------- a round of feedback in one call
//
// What aggregate, an estimator's update and estimate, and the score D^exponent come to, one after the other, bit for
// bit. Nothing is stored: the caller does that.
struct Learnt {
  Feedback round;         // of the m regions with losses; m2 is room afterwards
  double *belief;         // [m, 2]: estimated mean, effective number of losses
  double *errors, *score; // [m]: standard error, and exponent * log(mean)
};
struct Facts {
  i64 m, dropped;
  bool usable;
  double lowest, top; // the lowest mean and the highest score
};
// `update(m)` fills the estimator's new rows and cv2 of m regions; `read(i, mean, count)` reads row i of these.
template <class Update, class Read>
Facts learn(i64 n, const i64 *regions, const double *losses, u64 *room, const Learnt &L, const double *cv2, double exponent, Update update, Read read) {
  Facts facts{0, 0, true, INFINITY, -INFINITY};
  const i64 m = facts.m = aggregate(n, regions, losses, room, L.round, facts.dropped);
  update(m);
  const double spread = cv2[0] / cv2[1];
  for (i64 i = 0; i < m; ++i) {
    double mean, count;
    read(i, mean, count);
    const double error = std::sqrt(spread / (count > TINY ? count : TINY)) * std::fabs(mean);
    facts.usable &= (std::fabs(mean) < INFINITY) & (error >= 0) & (count > 0);
    L.belief[2 * i] = mean;
    L.belief[2 * i + 1] = count;
    L.errors[i] = error;
    L.round.m2[i] = mean > 0 ? mean : 0.0; // the squares have done their service
    facts.lowest = std::min(facts.lowest, mean);
  }
  logarithms(m, L.round.m2, L.score);
  for (i64 i = 0; i < m; ++i) {
    L.score[i] = exponent == 0 ? 0.0 : exponent * L.score[i];
    facts.top = std::max(facts.top, L.score[i]);
  }
  return facts;
}

// ---------------------------------------------------------------- a profile over ranges of noise levels

// One moving average a range, of losses weighted by `weights`: total and weight, [bins], one round later. `sums`: room
// for 3 * bins. log_keep: log of what one loss leaves of the past.
inline void profile_update(i64 n, i64 n_bins, const i64 *bins, const double *losses, const double *weights, double log_keep, double *sums, double *total, double *weight) {
  constexpr double MOST_WEIGHT = 1e100; // beyond it, times the largest loss, a sum could be infinite
  std::fill(sums, sums + 3 * n_bins, 0.0);
  double *const count = sums, *const mass = sums + n_bins, *const losses_of = sums + 2 * n_bins;
  for (i64 i = 0; i < n; ++i) {
    if (!(std::fabs(losses[i]) < LOSS_LIMIT)) continue;
    const double w = weights[i] < MOST_WEIGHT ? weights[i] : MOST_WEIGHT;
    count[bins[i]] += 1;
    mass[bins[i]] += w;
    losses_of[bins[i]] += w * losses[i];
  }
  for (i64 b = 0; b < n_bins; ++b) {
    const double mean = losses_of[b] / (mass[b] > TINY ? mass[b] : TINY), keep = exponential(count[b] * log_keep), gain = 1 - keep;
    total[b] = keep * total[b] + gain * mean;
    weight[b] = keep * weight[b] + gain;
  }
}

// ---------------------------------------------------------------- what is borrowed by regions never visited
//
// Beliefs, a row a region: estimated mean, and effective number of losses behind it.

// Of one block, of which there are `size` members.
inline void sum_beliefs(i64 size, const double *belief, double *sums) {
  double total[BLOCK] = {0}, count[BLOCK] = {0};
  const auto take = [&](i64 members) {
    for (i64 k = 0; k < members; ++k) {
      const double n = belief[2 * k + 1];
      count[k] = n > 0 ? n : 0.0;
      total[k] = n > 0 ? n * belief[2 * k] : 0.0;
    }
  };
  size < BLOCK ? take(size) : take(BLOCK); // a constant number makes vectors
  sums[0] = sum64(total);
  sums[1] = sum64(count);
}
inline void sum_beliefs(i64 K, i64 b, const double *belief, double *sums) {
  sum_beliefs(std::min(K - b * BLOCK, BLOCK), belief + 2 * b * BLOCK, sums + 2 * b);
}
// Stores new beliefs of some regions, ascending, and their sums by block. Returns nothing that may fail.
ARIA_CLONES static void believe(i64 K, i64 m, const i64 *regions, const double *news, double *belief, double *sums) {
  for (i64 i = 0; i < m; ++i) {
    belief[2 * regions[i]] = news[2 * i];
    belief[2 * regions[i] + 1] = news[2 * i + 1];
  }
  for (i64 i = 0; i < m; ++i) {
    const i64 b = regions[i] / BLOCK;
    if (i == 0 || b != regions[i - 1] / BLOCK) sum_beliefs(K, b, belief, sums);
  }
}
// The count-weighted mean of all regions if `news` were stored; NaN if nothing is known.
ARIA_CLONES static double borrowed(i64 K, i64 m, const i64 *regions, const double *news, const double *belief, const double *sums) {
  double total = 0, count = 0;
  i64 i = 0;
  for (i64 b = 0; b < blocks(K); ++b) {
    double now[2] = {sums[2 * b], sums[2 * b + 1]};
    if (i < m && regions[i] / BLOCK == b) {
      double aside[2 * BLOCK];
      const i64 begin = b * BLOCK, stop = std::min(begin + BLOCK, K);
      std::copy(belief + 2 * begin, belief + 2 * stop, aside);
      for (; i < m && regions[i] / BLOCK == b; ++i) {
        aside[2 * (regions[i] - begin)] = news[2 * i];
        aside[2 * (regions[i] - begin) + 1] = news[2 * i + 1];
      }
      sum_beliefs(stop - begin, aside, now);
    }
    total += now[0];
    count += now[1];
  }
  return count > 0 ? total / count : NAN;
}

// ---------------------------------------------------------------- water level

// From weights to x: those of cold regions times `cold`.
ARIA_CLONES static void unmarked(i64 n, const double *__restrict w, double cold, double *__restrict x) {
  for (i64 k = 0; k < n; ++k) {
    const double weight = w[k], frozen = cold * -weight;
    x[k] = weight > 0 ? weight : frozen;
  }
}

// x = max(level * u - s, 0) with the level at which x sums to 1; u are weights, s is the effort that comes anyway.
//
// The sum is convex and piecewise linear in the level, so Newton's method comes to the level from above, and is exact
// once it knows which regions stay dry. `guess`: the level of the last round; 0 if there was none. A guess that is
// too low costs one more pass. All arrays are padded. x: weights before, shares after. Returns the level; where there is
// no weight, it is 0, and so is x.
ARIA_CLONES static double water(i64 K, const double *__restrict s, double scale, double guess, double *__restrict x, double *__restrict sums) {
  const i64 end = blocks(K) * BLOCK;
  // from the lowest ground on, so that a huge s cancels; it is 0 as soon as any region has no effort of its own
  double lowest = INFINITY;
  for (i64 k = 0; k < end && lowest > 0; ++k)
    if (x[k] > 0) lowest = std::min(lowest, s[k] / x[k]);
  if (!(lowest < INFINITY)) lowest = 0;
  double level = guess > 0 ? guess : INFINITY;
  double wet = -1;
  for (int passes = 0; passes < 200; ++passes) { // it takes 2 to 10; rounding might go to and fro
    double weights[8] = {0}, grounds[8] = {0}, numbers[8] = {0};
    for (i64 k = 0; k < end; k += 8)
      for (int j = 0; j < 8; ++j) {
        const double u = x[k + j], depth = (s[k + j] - lowest * u) * scale, ground = depth > 0 ? depth : 0.0;
        // by products: a branch would be guessed wrong. The level may be infinite: then all that has a weight is in
        const double in = level * u > ground ? 1.0 : 0.0;
        weights[j] += in * u;
        grounds[j] += in * ground;
        numbers[j] += in;
      }
    double weight = 0, ground = 0, number = 0;
    for (int j = 0; j < 8; ++j) {
      weight += weights[j];
      ground += grounds[j];
      number += numbers[j];
    }
    if (number == 0) { // the guess lies below all ground, or there is no weight anywhere
      if (level == INFINITY) break;
      level = INFINITY;
      continue;
    }
    const double better = (1 + ground) / weight;
    const bool done = number == wet && !(better > level); // wet sets are nested: as many are the same ones
    wet = number;
    level = better;
    if (done) break;
  }
  if (!(level * LEAST_WEIGHT < 1)) level = 0; // no weight anywhere, or as good as none
  for (i64 b = 0; b < blocks(K); ++b) {
    for (i64 k = b * BLOCK; k < (b + 1) * BLOCK; ++k) {
      double ground = (s[k] - lowest * x[k]) * scale;
      ground = ground > 0 ? ground : 0.0;
      const double share = level * x[k] - ground;
      x[k] = share > 0 ? share : 0.0;
    }
    sums[b] = sum64(x + b * BLOCK);
  }
  return level;
}

} // namespace aria
