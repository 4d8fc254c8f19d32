/* m0fast.c - a small ARMv6-M (Cortex-M0+) interpreter for pico_w.py.
 *
 * Why: rp2040py's own core runs 3-4 million instructions per second here, i.e.
 * the board is 20-40 times slower than real time.  This file runs the ordinary
 * instructions (ALU, branches, loads and stores in ROM, flash and SRAM) in C, on the
 * very same register file and memories that rp2040py owns, and gives
 * everything else back to rp2040py:
 *
 *   R_READ / R_WRITE  a load or store outside ROM/flash/SRAM (a peripheral);
 *                     the caller does the access through rp2040py's bus
 *   R_STEP            an instruction this file does not do (WFI, WFE, SVC, MSR of
 *                     anything but PRIMASK, exception return, ...); the PC
 *                     is left on it and rp2040py's core executes that one
 *   R_BUDGET          the cycle budget is spent (an alarm is due)
 *
 * The SIO hardware divider and the spin locks are kept here, because the guest touches
 * them thousands of times per millisecond; the caller copies their state
 * to and from rp2040py's SIO object when it changes engines.
 *
 * Cycle counts are those of the Cortex-M0+ manual as rp2040py counts them: 1
 * per ALU op, 2 per load/store (1 for SIO, 4/5 for APB), 2 per taken branch,
 * 3 for BL, 1+N for LDM/STM/PUSH/POP.
 * On top of it comes an optional model of the RP2040's XIP cache (16 kB, two
 * ways, 8-byte lines): a miss costs `xip_penalty` cycles.  Without it all the flash
 * would seem to be as fast as SRAM, which a real board's is not.
 */
#include <stdint.h>
#include <string.h>

enum { R_BUDGET = 0, R_READ = 1, R_WRITE = 2, R_STEP = 3 };

#define XIP_SETS 1024u

typedef struct {
    uint32_t *r;                 /* the 16 registers, shared with rp2040py   */
    uint8_t *rom, *flash, *sram;
    uint32_t *xip_tag;           /* XIP_SETS * 2 line numbers (0 = empty)    */
    uint8_t *xip_old;            /* XIP_SETS: which way to evict next        */
    uint64_t instrs;             /* running total                            */
    uint64_t xip_hits, xip_misses;
    uint32_t rom_size, flash_size, sram_size;
    uint32_t n, z, c, v;         /* APSR                                     */
    uint32_t pm;                 /* PRIMASK                                  */
    uint32_t handler;            /* handler mode: 0xFxxxxxxx is EXC_RETURN   */
    uint32_t irq_pending;        /* an enabled interrupt waits for PRIMASK=0 */
    uint32_t addr, size, reg, sign, value;      /* of R_READ and R_WRITE     */
    uint32_t div_dividend, div_divisor, div_quotient, div_remainder, div_csr;
    uint32_t spin_lock;
    uint32_t xip_on, xip_penalty;
    uint32_t xip_last;           /* last flash line touched by a fetch + 1   */
    uint32_t pad;
} m0;

uint32_t m0_sizeof(void) { return sizeof(m0); }

/* One access to the XIP window; returns the extra cycles. */
static inline uint32_t xip(m0 *m, uint32_t offset)
{
    uint32_t line = (offset >> 3) + 1, set = (line - 1) & (XIP_SETS - 1);
    uint32_t *tag = m->xip_tag + 2 * set;
    if (tag[0] == line) { m->xip_old[set] = 1; m->xip_hits++; return 0; }
    if (tag[1] == line) { m->xip_old[set] = 0; m->xip_hits++; return 0; }
    uint32_t way = m->xip_old[set];
    tag[way] = line;
    m->xip_old[set] = way ^ 1;
    m->xip_misses++;
    return m->xip_penalty;
}

/* Host pointer for a guest address that may be read here, or NULL. */
static inline uint8_t *readable(m0 *m, uint32_t a, uint32_t len, uint64_t *cyc)
{
    uint32_t o = a - 0x20000000u;
    if (o <= m->sram_size - len) return m->sram + o;
    o = a - 0x10000000u;
    if (o <= m->flash_size - len) {
        if (m->xip_on) *cyc += xip(m, o);
        return m->flash + o;
    }
    if (a <= m->rom_size - len) return m->rom + a;
    return 0;
}

static inline uint8_t *writable(m0 *m, uint32_t a, uint32_t len)
{
    uint32_t o = a - 0x20000000u;
    return o <= m->sram_size - len ? m->sram + o : 0;
}

static inline uint32_t io_cycles(uint32_t a, int write)
{
    switch (a >> 28) {
    case 0xD: return 0;
    case 0x4: return write ? 4 : 3;
    default: return 1;
    }
}

static void divide(m0 *m, int is_signed)
{
    uint32_t a = m->div_dividend, b = m->div_divisor;
    if (b == 0) {
        m->div_quotient = is_signed ? ((int32_t)a < 0 ? 1u : ~0u) : ~0u;
        m->div_remainder = a;
    } else if (is_signed) {
        if (a == 0x80000000u && b == ~0u) { m->div_quotient = a; m->div_remainder = 0; }
        else {
            m->div_quotient = (uint32_t)((int32_t)a / (int32_t)b);
            m->div_remainder = (uint32_t)((int32_t)a % (int32_t)b);
        }
    } else {
        m->div_quotient = a / b;
        m->div_remainder = a % b;
    }
    m->div_csr = 3;
}

/* The parts of SIO kept here; 1 when the access was served. */
static int sio_read(m0 *m, uint32_t o, uint32_t *v)
{
    switch (o) {
    case 0x00: *v = 0; return 1;                          /* CPUID */
    case 0x60: case 0x68: *v = m->div_dividend; return 1;
    case 0x64: case 0x6C: *v = m->div_divisor; return 1;
    case 0x70: m->div_csr &= ~2u; *v = m->div_quotient; return 1;
    case 0x74: *v = m->div_remainder; return 1;
    case 0x78: *v = m->div_csr; return 1;
    case 0x5C: *v = m->spin_lock; return 1;
    }
    if (o >= 0x100 && o <= 0x17C) {
        uint32_t bit = 1u << ((o - 0x100) >> 2);
        *v = m->spin_lock & bit ? 0 : bit;
        m->spin_lock |= bit;
        return 1;
    }
    return 0;
}

static int sio_write(m0 *m, uint32_t o, uint32_t v)
{
    switch (o) {
    case 0x60: m->div_dividend = v; divide(m, 0); return 1;
    case 0x64: m->div_divisor = v; divide(m, 0); return 1;
    case 0x68: m->div_dividend = v; divide(m, 1); return 1;
    case 0x6C: m->div_divisor = v; divide(m, 1); return 1;
    case 0x70: m->div_quotient = v; m->div_csr = 3; return 1;
    case 0x74: m->div_remainder = v; m->div_csr = 3; return 1;
    }
    if (o >= 0x100 && o <= 0x17C) {
        m->spin_lock &= ~(1u << ((o - 0x100) >> 2));
        return 1;
    }
    return 0;
}

#define R(i) (r[i])
#define SETNZ(x) do { n = (x) >> 31; z = (x) == 0; } while (0)
#define ADDF(d, a_, b_, ci) do { uint32_t A = (a_), B = (b_); \
    uint64_t S = (uint64_t)A + B + (ci); uint32_t X = (uint32_t)S; \
    n = X >> 31; z = X == 0; c = (uint32_t)(S >> 32); \
    v = ((A ^ X) & (B ^ X)) >> 31; (d) = X; } while (0)
#define SUBF(d, a_, b_) ADDF(d, a_, ~(uint32_t)(b_), 1)
#define LEAVE(why) do { reason = (why); goto out; } while (0)

/* a load of `len` bytes into Rt */
#define LOAD(len, sx) do { \
    uint32_t A = a; uint8_t *p; \
    if ((A & (len - 1)) == 0 && (p = readable(m, A, len, &cyc))) { \
        uint32_t X; \
        if (len == 4) { memcpy(&X, p, 4); } \
        else if (len == 2) { \
            uint16_t H; memcpy(&H, p, 2); X = sx ? (uint32_t)(int32_t)(int16_t)H : H; } \
        else X = sx ? (uint32_t)(int32_t)(int8_t)*p : *p; \
        R(t) = X; cyc += 2; break; \
    } \
    uint32_t X; \
    if (len == 4 && (A >> 12) == 0xD0000u && sio_read(m, A & 0xFFF, &X)) { \
        R(t) = X; cyc += 1; break; } \
    m->addr = A; m->size = len; m->reg = t; m->sign = sx; \
    cyc += 1 + io_cycles(A, 0); count++; \
    LEAVE(R_READ); } while (0)

#define STORE(len) do { \
    uint32_t A = a, X = R(t); uint8_t *p; \
    if ((A & (len - 1)) == 0 && (p = writable(m, A, len))) { \
        memcpy(p, &X, len); cyc += 2; break; } \
    if (len == 4 && (A >> 12) == 0xD0000u && sio_write(m, A & 0xFFF, X)) { cyc += 1; break; } \
    m->addr = A; m->size = len; m->value = X; \
    cyc += 1 + io_cycles(A, 1); count++; \
    LEAVE(R_WRITE); } while (0)

/* Run for `budget` cycles at most; returns (cycles used << 2) | reason. */
uint64_t m0_run(m0 *m, uint64_t budget)
{
    uint32_t *r = m->r;
    uint32_t n = m->n, z = m->z, c = m->c, v = m->v;
    uint32_t pc = r[15] & ~1u, reason = R_BUDGET;
    uint64_t cyc = 0, count = 0;

    while (cyc < budget) {
        uint32_t at = pc, op, t, a;
        uint8_t *ip;

        /* fetch */
        uint32_t fo = pc - 0x10000000u;
        if (fo < m->flash_size - 4) {
            ip = m->flash + fo;
            if (m->xip_on && (fo >> 3) + 1 != m->xip_last) {
                m->xip_last = (fo >> 3) + 1;
                cyc += xip(m, fo);
            }
        } else if (pc - 0x20000000u < m->sram_size - 4) ip = m->sram + (pc - 0x20000000u);
        else if (pc < m->rom_size - 4) ip = m->rom + pc;
        else LEAVE(R_STEP);
        { uint16_t h; memcpy(&h, ip, 2); op = h; }
        pc += 2;

        switch (op >> 11) {
        case 0: {                                                   /* LSLS imm */
            uint32_t k = (op >> 6) & 31, x = R((op >> 3) & 7);
            if (k) { c = (x >> (32 - k)) & 1; x <<= k; }
            R(op & 7) = x; SETNZ(x); cyc++; break; }
        case 1: {                                                   /* LSRS imm */
            uint32_t k = (op >> 6) & 31, x = R((op >> 3) & 7);
            if (k) { c = (x >> (k - 1)) & 1; x >>= k; } else { c = x >> 31; x = 0; }
            R(op & 7) = x; SETNZ(x); cyc++; break; }
        case 2: {                                                   /* ASRS imm */
            uint32_t k = (op >> 6) & 31, x = R((op >> 3) & 7);
            if (k) { c = (x >> (k - 1)) & 1; x = (uint32_t)((int32_t)x >> k); }
            else { c = x >> 31; x = (uint32_t)((int32_t)x >> 31); }
            R(op & 7) = x; SETNZ(x); cyc++; break; }
        case 3: {                                       /* ADDS/SUBS reg or imm3 */
            uint32_t x = R((op >> 3) & 7), k = (op >> 6) & 7, d = op & 7;
            uint32_t y = op & 0x400 ? k : R(k);
            if (op & 0x200) SUBF(R(d), x, y); else ADDF(R(d), x, y, 0);
            cyc++; break; }
        case 4: { uint32_t x = op & 255; R((op >> 8) & 7) = x; SETNZ(x); cyc++; break; }
        case 5: { uint32_t d; SUBF(d, R((op >> 8) & 7), op & 255); (void)d; cyc++; break; }
        case 6: { uint32_t d = (op >> 8) & 7; ADDF(R(d), R(d), op & 255, 0); cyc++; break; }
        case 7: { uint32_t d = (op >> 8) & 7; SUBF(R(d), R(d), op & 255); cyc++; break; }
        case 8:
            if (op < 0x4400) {                                 /* data processing */
                uint32_t d = op & 7, y = R((op >> 3) & 7), x = R(d), k;
                switch ((op >> 6) & 15) {
                case 0: x &= y; R(d) = x; SETNZ(x); break;                 /* ANDS */
                case 1: x ^= y; R(d) = x; SETNZ(x); break;                 /* EORS */
                case 2: k = y & 255;                                       /* LSLS */
                    if (k) {
                        c = k <= 32 ? (k == 32 ? x & 1 : (x >> (32 - k)) & 1) : 0;
                        x = k < 32 ? x << k : 0;
                    }
                    R(d) = x; SETNZ(x); break;
                case 3: k = y & 255;                                       /* LSRS */
                    if (k) { c = k <= 32 ? (x >> (k - 1)) & 1 : 0; x = k < 32 ? x >> k : 0; }
                    R(d) = x; SETNZ(x); break;
                case 4: k = y & 255;                                       /* ASRS */
                    if (k) {
                        c = k < 32 ? (x >> (k - 1)) & 1 : x >> 31;
                        x = (uint32_t)((int32_t)x >> (k < 32 ? k : 31));
                    }
                    R(d) = x; SETNZ(x); break;
                case 5: ADDF(R(d), x, y, c); break;                        /* ADCS */
                case 6: ADDF(R(d), x, ~y, c); break;                       /* SBCS */
                case 7: k = y & 255;                                       /* RORS */
                    if (k) { k &= 31; if (k) x = (x >> k) | (x << (32 - k)); c = x >> 31; }
                    R(d) = x; SETNZ(x); break;
                case 8: x &= y; SETNZ(x); break;                           /* TST  */
                case 9: SUBF(R(d), 0, y); break;                           /* RSBS */
                case 10: { uint32_t q; SUBF(q, x, y); (void)q; break; }    /* CMP  */
                case 11: { uint32_t q; ADDF(q, x, y, 0); (void)q; break; } /* CMN  */
                case 12: x |= y; R(d) = x; SETNZ(x); break;                /* ORRS */
                case 13: x *= y; R(d) = x; SETNZ(x); break;                /* MULS */
                case 14: x &= ~y; R(d) = x; SETNZ(x); break;               /* BICS */
                case 15: x = ~y; R(d) = x; SETNZ(x); break;                /* MVNS */
                }
                cyc++; break;
            } else {                                      /* high registers, BX */
                r[15] = pc + 2;                 /* what the instruction reads as PC */
                uint32_t d = (op & 7) | ((op >> 4) & 8), s = (op >> 3) & 15, x = R(s);
                switch ((op >> 8) & 3) {
                case 0:                                                     /* ADD */
                    x += R(d);
                    if (d == 15) { pc = x & ~1u; cyc += 2; }
                    else { R(d) = d == 13 ? x & ~3u : x; cyc++; }
                    break;
                case 1: { uint32_t q; SUBF(q, R(d), x); (void)q; cyc++; break; }
                case 2:                                                     /* MOV */
                    if (d == 15) { pc = x & ~1u; cyc += 2; }
                    else { R(d) = d == 13 ? x & ~3u : x; cyc++; }
                    break;
                case 3:                                                /* BX, BLX */
                    if (op & 7) LEAVE(R_STEP);
                    if (op & 0x80) { R(14) = pc | 1; pc = x & ~1u; cyc += 2; break; }
                    if (m->handler && (x >> 28) == 0xF) LEAVE(R_STEP);
                    pc = x & ~1u; cyc += 2; break;
                }
                break;
            }
        case 9: t = (op >> 8) & 7; a = ((pc + 2) & ~3u) + ((op & 255) << 2); LOAD(4, 0); break;
        case 10: case 11: {
            t = op & 7; a = R((op >> 3) & 7) + R((op >> 6) & 7);
            switch ((op >> 9) & 7) {
            case 0: STORE(4); break;
            case 1: STORE(2); break;
            case 2: STORE(1); break;
            case 3: LOAD(1, 1); break;
            case 4: LOAD(4, 0); break;
            case 5: LOAD(2, 0); break;
            case 6: LOAD(1, 0); break;
            case 7: LOAD(2, 1); break;
            }
            break; }
        case 12: t = op & 7; a = R((op >> 3) & 7) + ((op >> 4) & 0x7C); STORE(4); break;
        case 13: t = op & 7; a = R((op >> 3) & 7) + ((op >> 4) & 0x7C); LOAD(4, 0); break;
        case 14: t = op & 7; a = R((op >> 3) & 7) + ((op >> 6) & 31); STORE(1); break;
        case 15: t = op & 7; a = R((op >> 3) & 7) + ((op >> 6) & 31); LOAD(1, 0); break;
        case 16: t = op & 7; a = R((op >> 3) & 7) + ((op >> 5) & 0x3E); STORE(2); break;
        case 17: t = op & 7; a = R((op >> 3) & 7) + ((op >> 5) & 0x3E); LOAD(2, 0); break;
        case 18: t = (op >> 8) & 7; a = R(13) + ((op & 255) << 2); STORE(4); break;
        case 19: t = (op >> 8) & 7; a = R(13) + ((op & 255) << 2); LOAD(4, 0); break;
        case 20: R((op >> 8) & 7) = ((pc + 2) & ~3u) + ((op & 255) << 2); cyc++; break;
        case 21: R((op >> 8) & 7) = R(13) + ((op & 255) << 2); cyc++; break;
        case 22: case 23: {                                         /* misc 0xBxxx */
            uint32_t d = op & 7, x = R((op >> 3) & 7);
            switch ((op >> 8) & 15) {
            case 0:
                if (op & 0x80) R(13) -= (op & 0x7F) << 2; else R(13) += (op & 0x7F) << 2;
                cyc++; break;
            case 2:
                switch ((op >> 6) & 3) {
                case 0: R(d) = (uint32_t)(int32_t)(int16_t)x; break;
                case 1: R(d) = (uint32_t)(int32_t)(int8_t)x; break;
                case 2: R(d) = x & 0xFFFF; break;
                case 3: R(d) = x & 0xFF; break;
                }
                cyc++; break;
            case 10:
                switch ((op >> 6) & 3) {
                case 0: R(d) = __builtin_bswap32(x); break;
                case 1: R(d) = ((x & 0x00FF00FFu) << 8) | ((x >> 8) & 0x00FF00FFu); break;
                case 2: LEAVE(R_STEP);
                case 3: R(d) = (uint32_t)(int32_t)(int16_t)((x << 8) | ((x >> 8) & 0xFF)); break;
                }
                cyc++; break;
            case 4: case 5: {                                             /* PUSH */
                uint32_t cnt = __builtin_popcount(op & 0x1FF), base = R(13) - 4 * cnt;
                uint32_t *p = (uint32_t *)writable(m, base, 4 * cnt);
                if (!p || (base & 3)) LEAVE(R_STEP);
                for (uint32_t i = 0; i < 8; i++) if (op >> i & 1) *p++ = R(i);
                if (op & 0x100) *p = R(14);
                R(13) = base; cyc += 1 + cnt; break; }
            case 12: case 13: {                                            /* POP */
                uint32_t cnt = __builtin_popcount(op & 0x1FF), base = R(13);
                uint32_t *p = (uint32_t *)writable(m, base, 4 * cnt);
                if (!p || (base & 3)) LEAVE(R_STEP);
                if (op & 0x100) {
                    uint32_t to = p[cnt - 1];
                    if (m->handler && (to >> 28) == 0xF) LEAVE(R_STEP);
                    pc = to & ~1u; cyc += 2;
                }
                for (uint32_t i = 0; i < 8; i++) if (op >> i & 1) { R(i) = *p; p++; }
                R(13) = base + 4 * cnt; cyc += 1 + cnt; break; }
            case 6:
                if (op == 0xB672) { m->pm = 1; cyc++; break; }         /* CPSID i */
                if (op == 0xB662 && !m->irq_pending) { m->pm = 0; cyc++; break; }
                LEAVE(R_STEP);
            case 15:
                if (op == 0xBF00 || op == 0xBF10) { cyc++; break; }  /* NOP, YIELD */
                LEAVE(R_STEP);
            default: LEAVE(R_STEP);
            }
            break; }
        case 24: {                                                       /* STMIA */
            uint32_t b = (op >> 8) & 7, cnt = __builtin_popcount(op & 255), base = R(b);
            uint32_t *p = (uint32_t *)writable(m, base, 4 * cnt);
            if (!p || (base & 3) || !cnt) LEAVE(R_STEP);
            for (uint32_t i = 0; i < 8; i++) if (op >> i & 1) *p++ = R(i);
            R(b) = base + 4 * cnt; cyc += 1 + cnt; break; }
        case 25: {                                                       /* LDMIA */
            uint32_t b = (op >> 8) & 7, cnt = __builtin_popcount(op & 255), base = R(b);
            uint32_t *p = cnt ? (uint32_t *)readable(m, base, 4 * cnt, &cyc) : 0;
            if (!p || (base & 3)) LEAVE(R_STEP);
            for (uint32_t i = 0; i < 8; i++) if (op >> i & 1) { R(i) = *p; p++; }
            if (!(op >> b & 1)) R(b) = base + 4 * cnt;
            cyc += 1 + cnt; break; }
        case 26: case 27: {                                              /* Bcond */
            int go;
            switch ((op >> 8) & 15) {
            case 0: go = z; break;
            case 1: go = !z; break;
            case 2: go = c; break;
            case 3: go = !c; break;
            case 4: go = n; break;
            case 5: go = !n; break;
            case 6: go = v; break;
            case 7: go = !v; break;
            case 8: go = c && !z; break;
            case 9: go = !c || z; break;
            case 10: go = n == v; break;
            case 11: go = n != v; break;
            case 12: go = !z && n == v; break;
            case 13: go = z || n != v; break;
            default: LEAVE(R_STEP);                                   /* UDF, SVC */
            }
            if (go) { pc += 2 + ((int32_t)(int8_t)op) * 2; cyc += 2; } else cyc++;
            break; }
        case 28: pc += 2 + (uint32_t)(((int32_t)(op << 21)) >> 20); cyc += 2; break;  /* B */
        case 30: {                                               /* 32-bit opcodes */
            uint32_t lo; { uint16_t h; memcpy(&h, ip + 2, 2); lo = h; }
            if (m->xip_on && fo < m->flash_size && ((fo + 2) >> 3) + 1 != m->xip_last) {
                m->xip_last = ((fo + 2) >> 3) + 1;
                cyc += xip(m, fo + 2);
            }
            if ((lo & 0xD000) == 0xD000) {                                /* BL */
                uint32_t s = (op >> 10) & 1;
                uint32_t i1 = !(((lo >> 13) & 1) ^ s), i2 = !(((lo >> 11) & 1) ^ s);
                uint32_t off = (s ? 0xFF000000u : 0) | i1 << 23 | i2 << 22;
                off |= (op & 0x3FF) << 12 | (lo & 0x7FF) << 1;
                pc += 2; R(14) = pc | 1; pc += off; cyc += 3; break;
            }
            if (op == 0xF3BF && (lo & 0xFFF0) >= 0x8F40 && (lo & 0xFFF0) <= 0x8F60) {
                pc += 2; cyc += 3; break;
            }
            if (op == 0xF3EF && (lo & 0xF0FF) == 0x8010) {
                pc += 2; R((lo >> 8) & 15) = m->pm; cyc += 3; break;
            }
            if ((op & 0xFFF0) == 0xF380 && lo == 0x8810) {          /* MSR PRIMASK */
                uint32_t x = R(op & 15) & 1;
                if (x || !m->irq_pending) { m->pm = x; pc += 2; cyc += 3; break; }
            }
            LEAVE(R_STEP); }
        default: LEAVE(R_STEP);
        }
        count++;
        continue;
out:
        if (reason == R_STEP) pc = at;
        break;
    }
    r[15] = pc;
    m->n = n; m->z = z; m->c = c; m->v = v;
    m->instrs += count;
    return cyc << 2 | reason;
}
