/* The floor of one room, with two agents, a watcher and up to two masters. docs/reference/model.md says what is modelled,
 * what is left out, and which run checks what.
 *
 * A comment `= path [name]` names the script or the method that a transition stands for; a unit test checks that each
 * of them exists. A switch (-D) that takes a rule away must lead to a counterexample.
 *
 * There is no clock and no pause: an agent that is stopped, slow, or cut off from Redis is one whose next step comes
 * late, and every step may come late. LiveKit that does not answer is a silencing that has not happened yet. What runs
 * out runs out at any moment; that its holder's own deadline is over by then is the one thing known of time (LATE).
 */

#ifndef FAULTS
#define FAULTS 3     /* leases and windows that run out on an agent which counts on them, deaths, suspicions of the watcher
                        (right or wrong), and releases, all together */
#endif
#ifndef KEEP
#define KEEP 1       /* policy `keep`; 0: policy `silence` */
#endif
#ifndef PROMOTED
#define PROMOTED 0   /* 1: a replica is promoted once */
#endif
#ifndef LOST
#define LOST 0       /* what it does not know: 0 nothing; 1 the last grant, unless it was confirmed by WAIT; 2 the last
                        grant, or all */
#endif
#ifndef OLD_MASTER
#define OLD_MASTER 0 /* 0: takes no writes from then on; 1: takes them for a while; 2: for ever, from one who is cut off */
#endif

#define NOBODY 2
#define WON 1
#define GONE 2

typedef Master {
  bool up;
  byte f;            /* last fence ever granted */
  byte holder;
  bool cur;          /* ... under the newest request of that agent */
  bool prov, lapsed; /* pushed and not renewed yet; its window is over */
  bool expired;      /* `until` is over */
  bool condemned;
  bool closed;       /* to all but the claim with the highest fence */
  bool q[2];
  bit first;
}
Master R[1 + PROMOTED];
byte top;                        /* highest fence granted by anybody */
#ifdef WRITES
byte written[1 + PROMOTED];      /* fence of the last accepted write */
#endif

bool alive[2], inroom[2], back[2];
bool pend[2];                    /* it asks for the floor */
byte g[2]; bool gprov[2];        /* a grant that it has not read yet, and whether it was pushed */
bool has[2], strict[2], doubt[2]; byte lf[2];
byte rr[2], rrf[2];              /* an answer to its renewal that it has not read yet */
bool rold[2];                    /* ... to a question that is older than its doubt */
bool over[2], glate[2], rlate[2];/* the time is over of what it holds, of the grant, of the answer */
bool leak[2];                    /* the server confirmed what it had given up */
byte susf[3], susa[3]; bool freed[3]; /* whom it (2: the watcher) has to silence, by fence; LiveKit has confirmed it */
byte faults = FAULTS;
byte x, w;                       /* scratch */
#if PROMOTED
Master old;                      /* what a replica knows that has missed the last grant */
bool missed, promoted;
bool link[2];                    /* which master it talks to */
byte seen[2], heard[2]; bool tell[2];
byte clock;                      /* right on all masters; without a second one, fences must grow without it */
#define at(i) link[i]
#define see(i, fence) seen[i] = max(seen[i], fence)
#else
#define at(i) 0
#define see(i, fence) skip
#endif

#define max(a, b) ((a) > (b) -> (a) : (b))
#define mine(i) (R[at(i)].holder == i && R[at(i)].cur)
#define free_(m) (R[m].holder == NOBODY)
/* = leases/lease.py Lease.held
 * = livekit/gate.py Gate.is_open */
#define open_(i) (has[i] && !doubt[i] && !(strict[i] && over[i]))
#define audible(i) (alive[i] && inroom[i] && open_(i))

/* = store/lua/lib/lease.lua fence_after */
inline fence_after(last, known) {
#if PROMOTED
  clock = max(clock, max(last, known)) + 1; x = clock;
#else
  x = last + 1;
#endif
  assert(x > top); top = x
}

inline vacate(m) {
  R[m].holder = NOBODY; R[m].cur = false; R[m].prov = false; R[m].lapsed = false; R[m].expired = false;
  R[m].condemned = false
}

inline copy(to, from) {
  to.f = from.f; to.holder = from.holder; to.cur = from.cur; to.prov = from.prov; to.lapsed = from.lapsed;
  to.expired = from.expired; to.condemned = from.condemned; to.closed = from.closed;
  to.q[0] = from.q[0]; to.q[1] = from.q[1]; to.first = from.first
}

/* = store/lua/lib/lease.lua install */
inline install(m, i, fence, window) {
#if LOST
  if
  :: m == 0 && !promoted -> copy(old, R[0]); missed = true
  :: else
  fi;
#endif
  R[m].f = fence; R[m].holder = i; R[m].cur = true; R[m].prov = window; R[m].lapsed = false; R[m].expired = false;
  R[m].condemned = false; R[m].closed = false
}

/* = store/lua/lib/lease.lua grant_next
 * To the first waiter whose subscription stands. `own` reads the reply instead of a message. */
#define reached(m, i, own) (R[m].q[i] && alive[i] && at(i) == m && (i == own || g[i] == 0))
inline grant_next(m, own) {
  if
  :: free_(m) && !R[m].closed ->
     if
     :: reached(m, R[m].first, own) -> w = R[m].first
     :: else ->
        if
        :: reached(m, 1 - R[m].first, own) -> w = 1 - R[m].first
        :: else -> w = NOBODY
        fi
     fi;
     if
     :: w != NOBODY ->
#if PROMOTED
        fence_after(R[m].f, seen[w]);
#else
        fence_after(R[m].f, 0);
#endif
        install(m, w, x, w != own);
        g[w] = x; gprov[w] = (w != own); glate[w] = false;
        R[m].q[w] = false
     :: else
     fi;
     w = 0; x = 0
  :: else
  fi
}

/* = store/lua/lease/request.lua
 * = leases/engine.py LeaseEngine._send */
inline request(i, m) {
  if
  :: R[m].holder == i && R[m].cur && !R[m].condemned ->
#if PROMOTED
     if
     :: seen[i] > R[m].f -> fence_after(R[m].f, seen[i]); R[m].f = x; x = 0
     :: else
     fi;
#endif
     R[m].expired = false; R[m].prov = false; R[m].lapsed = false;
     g[i] = R[m].f; gprov[i] = false; glate[i] = false
  :: else ->
#if PROMOTED
     if
     :: seen[i] > R[m].f -> R[m].f = seen[i]; R[m].closed = true
     :: else
     fi;
#endif
     if
     :: R[m].lapsed -> vacate(m)
#ifdef NO_RULE_OF_EXPIRY
     :: R[m].expired && !R[m].lapsed -> vacate(m)
#endif
     :: else
     fi;
     if
     :: !R[m].q[i] -> R[m].q[i] = true; R[m].first = (R[m].q[1 - i] -> 1 - i : i)
     :: else
     fi;
     grant_next(m, i);
     if
     :: !free_(m) && R[m].expired -> R[m].condemned = true; susf[i] = R[m].f; susa[i] = R[m].holder
     :: else
     fi
  fi
}

/* = store/lua/lease/renew.lua */
inline renew(i, m) {
  rold[i] = false; rlate[i] = false; rr[i] = WON;
  if
  :: R[m].holder == i && R[m].cur && R[m].condemned -> rr[i] = GONE
  :: R[m].holder == i && R[m].cur && !R[m].condemned ->
#if PROMOTED
     if
     :: seen[i] > R[m].f -> fence_after(R[m].f, seen[i]); R[m].f = x; x = 0
     :: else
     fi;
#endif
     R[m].expired = false; R[m].prov = false; R[m].lapsed = false
  :: else ->
#if PROMOTED
     if
     :: R[m].f < lf[i] || (R[m].f == lf[i] && R[m].closed) ->
        if
        :: seen[i] > lf[i] -> fence_after(lf[i], seen[i])
        :: else -> x = lf[i]
        fi;
        install(m, i, x, false); x = 0
     :: else -> rr[i] = GONE
     fi
#else
     rr[i] = GONE
#endif
  fi;
  rrf[i] = R[m].f
}

/* = leases/keeper.py Keeper.lose
 * = livekit/seat.py Seat._on_lost */
inline lose(i) {
  has[i] = false; lf[i] = 0; strict[i] = false; over[i] = false; doubt[i] = false
#if PROMOTED
  ; tell[i] = false
#endif
}

#ifdef RETURN_IS_FORGOTTEN
#define after_return(i) false
#else
#define after_return(i) back[i]
#endif

/* = leases/keeper.py Keeper.hold
 * = livekit/seat.py Seat.hold */
inline hold(i) {
  has[i] = true; pend[i] = false; lf[i] = g[i];
#ifdef LATE_GRANT_COUNTS
  strict[i] = false;
#else
  strict[i] = (gprov[i] || glate[i] || !KEEP); over[i] = (strict[i] && glate[i]);
#endif
#if PROMOTED
  doubt[i] = (after_return(i) || seen[i] > lf[i]); tell[i] = true;
#else
  doubt[i] = after_return(i);
#endif
  see(i, lf[i]);
  g[i] = 0; gprov[i] = false; glate[i] = false
}

inline end_of(i) {
  lose(i); alive[i] = false; inroom[i] = false; back[i] = false; pend[i] = false; leak[i] = false;
  g[i] = 0; gprov[i] = false; glate[i] = false; rr[i] = 0; rrf[i] = 0; rold[i] = false; rlate[i] = false;
  susf[i] = 0; susa[i] = 0; freed[i] = false
#if PROMOTED
  ; heard[i] = 0
#endif
}

inline silenced(i, m) {
  if
  :: R[m].f == susf[i] && !free_(m) && R[m].condemned -> vacate(m); grant_next(m, NOBODY)
  :: else
  fi;
  susf[i] = 0; susa[i] = 0; freed[i] = false
}

#ifdef NO_FENCE_CHECK
#define current(i) true
#else
#define current(i) (R[at(i)].f == lf[i] && !free_(at(i)))
#endif
#define idle(i) (!has[i] && g[i] == 0 && rr[i] == 0 && susf[i] == 0 && !leak[i])
/* A repetition that would change nothing is not made here. */
#define worth(i, m) (!pend[i] || mine(i) || !R[m].q[i] || (free_(m) && !R[m].closed) || R[m].expired || R[m].lapsed)
#define to_renew(i, m) ((strict[i] && KEEP) || doubt[i] || !mine(i) || R[m].f != lf[i] || R[m].expired || R[m].prov || \
                        R[m].condemned)

proctype Agent(bit i) {
  bit m;
end:
  do
  /* = leases/engine.py LeaseEngine.acquire
   * = leases/waiting.py WaitingRoom.repeat_all
   * = livekit/succession.py Succession._step_in */
  :: d_step { alive[i] && inroom[i] && idle(i) && R[at(i)].up && worth(i, at(i)) ->
       m = at(i);
       if
       :: !pend[i] ->     /* a new request: what is left of an older one is not its own any more */
          pend[i] = true;
          if
          :: R[0].holder == i -> R[0].cur = false
          :: else
          fi;
#if PROMOTED
          if
          :: R[1].holder == i -> R[1].cur = false
          :: else
          fi;
#endif
#if LOST
          if
          :: old.holder == i -> old.cur = false
          :: else
          fi
#endif
       :: else
       fi;
       request(i, m); m = 0 }
  /* A grant is read, in a reply or pushed. = leases/engine.py LeaseEngine._on_grant */
#if LOST == 1
  /* ... and used when replicas have it, else it is given back. = leases/engine.py LeaseEngine._replicate */
  :: d_step { alive[i] && g[i] != 0 && pend[i] && R[at(i)].up ->
       if
       :: mine(i) && R[at(i)].f == g[i] -> hold(i); missed = (missed && at(i))
       :: else -> g[i] = 0; gprov[i] = false; glate[i] = false
       fi }
#else
  :: d_step { alive[i] && g[i] != 0 && pend[i] -> hold(i) }
#endif
#if PROMOTED
  /* ... and dropped, where another master serves a request that was served before. */
  :: d_step { alive[i] && g[i] != 0 && !pend[i] -> g[i] = 0; gprov[i] = false; glate[i] = false }
#endif
  /* = leases/keeper.py Keeper.renew */
  :: d_step { alive[i] && has[i] && rr[i] == 0 && R[at(i)].up && to_renew(i, at(i)) -> m = at(i); renew(i, m); m = 0 }
  /* = leases/keeper.py Keeper._read_renewal */
  :: d_step { alive[i] && rr[i] != 0 ->
       see(i, rrf[i]);
       if
       :: has[i] && rr[i] == GONE -> lose(i)
       :: has[i] && rr[i] == WON && !rlate[i] ->
          lf[i] = rrf[i]; strict[i] = !KEEP; over[i] = false; doubt[i] = (doubt[i] && rold[i])
       :: !has[i] && rr[i] == WON -> leak[i] = true
       :: else
       fi;
       rr[i] = 0; rrf[i] = 0; rold[i] = false; rlate[i] = false }
  /* Its own deadline is over. = leases/keeper.py Keeper._expire */
  :: d_step { alive[i] && has[i] && strict[i] && over[i] -> lose(i) }
  /* = store/lua/lease/release.lua
   * = leases/keeper.py Keeper.release */
  :: d_step { alive[i] && R[at(i)].up && (leak[i] || (faults > 0 && open_(i) && inroom[i] && rr[i] == 0)) ->
       m = at(i);
       if
       :: leak[i] -> leak[i] = false
       :: else -> faults--; lose(i)
       fi;
       if
       :: mine(i) -> vacate(m); grant_next(m, NOBODY)
       :: else
       fi;
       m = 0 }
  /* = store/lua/lease/settle.lua
   * = leases/keeper.py Keeper.watch_grant */
  :: d_step { alive[i] && R[at(i)].up && R[at(i)].lapsed && R[at(i)].holder != i ->
       m = at(i); vacate(m); grant_next(m, NOBODY); m = 0 }
  /* = livekit/silence.py RoomSilencer.silence
   * What is left of its own last lease is silent already. = leases/engine.py LeaseEngine._silence_suspect */
  :: d_step { alive[i] && susf[i] != 0 && !freed[i] ->
       freed[i] = true;
       if
       :: susa[i] != i -> inroom[susa[i]] = false
       :: else
       fi }
#if KEEP == 0
  /* LiveKit does not answer, but what ran out is shut by its own deadline. = ports.py Silenced */
  :: d_step { alive[i] && susf[i] != 0 && !freed[i] -> freed[i] = true }
#endif
  /* = store/lua/lease/silenced.lua
   * = leases/engine.py LeaseEngine.free */
  :: d_step { alive[i] && freed[i] && R[at(i)].up -> m = at(i); silenced(i, m); m = 0 }
#ifdef WRITES
  /* A write under the fence. = store/lua/context/put.lua */
  :: d_step { alive[i] && has[i] && R[at(i)].up && lf[i] != written[at(i)] && current(i) ->
       m = at(i); assert(lf[i] > written[m]); written[m] = lf[i]; m = 0 }
#endif
  /* Removed from the room, and back with its old token, once. = livekit/seat.py Seat._on_reconnected */
  :: d_step { alive[i] && !inroom[i] && !back[i] ->
       inroom[i] = true; back[i] = true; doubt[i] = has[i]; rold[i] = (rr[i] != 0) }
  /* It asks whether it was replaced, or is removed again, and ends. = livekit/seat.py Seat._ask_roster
   * = livekit/silence.py RoomSilencer.watch */
  :: d_step { alive[i] && (back[i] || !inroom[i]) -> end_of(i) }
#if PROMOTED
  /* = livekit/messages/floor.py announce
   * = livekit/seat.py Seat._tell */
  :: d_step { alive[i] && has[i] && tell[i] && inroom[i] ->
       tell[i] = false;
       if
       :: alive[1 - i] && inroom[1 - i] && lf[i] > heard[1 - i] -> heard[1 - i] = lf[i]
       :: else
       fi }
  /* = room/floor.py Floor.witness
   * = leases/keeper.py Keeper.doubt */
  :: d_step { alive[i] && heard[i] != 0 ->
       if
       :: has[i] && heard[i] > lf[i] -> doubt[i] = true; rold[i] = (rr[i] != 0)
       :: else
       fi;
       see(i, heard[i]); heard[i] = 0 }
  /* Its connections go to the new master. = leases/engine.py LeaseEngine._repeat_all
   * = store/sentinel.py SentinelTopology._found */
  :: d_step { alive[i] && promoted && !link[i] && !(OLD_MASTER == 2 && i == 0) -> link[i] = 1 }
  /* ... and a message of the old one is lost. = store/topology.py SingleServer.move */
  :: d_step { alive[i] && promoted && !link[i] && !(OLD_MASTER == 2 && i == 0) && g[i] != 0 ->
       link[i] = 1; g[i] = 0; gprov[i] = false; glate[i] = false }
#endif
  od
}

/* = recovery/watcher.py Watcher
 * = recovery/replacement.py Replacement.recover */
proctype Watcher() {
  bit m;
end:
  do
  /* = store/lua/lease/revoke.lua
   * = room/floor.py Floor.condemn */
  :: d_step { faults > 0 && susf[2] == 0 && R[m].up && !free_(m) && !R[m].condemned ->
       faults--; R[m].condemned = true; R[m].prov = false; R[m].lapsed = false;
       susf[2] = R[m].f; susa[2] = R[m].holder }
  /* = livekit/silence.py RoomSilencer.silence */
  :: d_step { susf[2] != 0 && !freed[2] -> inroom[susa[2]] = false; freed[2] = true }
  /* = room/floor.py Floor.free */
  :: d_step { freed[2] && R[m].up -> silenced(2, m) }
#if PROMOTED
  /* = store/topology.py SingleServer.move */
  :: d_step { promoted && m == 0 -> m = 1 }
#endif
  od
}

/* Whether the holder still counts on its lease; what nobody counts on runs out at no cost. */
#define counts_on(m, h) (alive[h] && R[m].cur && (has[h] || pend[h] || rr[h] != 0 || leak[h]))
#define affordable(m) (faults > 0 || R[m].condemned || !counts_on(m, R[m].holder))
inline ran_out(m) {
  w = R[m].holder;
  if
  :: counts_on(m, w) && !R[m].condemned -> faults--
  :: else
  fi;
  if
  :: R[m].cur ->           /* LATE: no deadline of a holder is behind the server's */
     over[w] = (has[w] && strict[w]); glate[w] = (g[w] != 0); rlate[w] = (rr[w] != 0)
  :: else
  fi;
  w = 0
}

proctype Clock(bit m) {
end:
  do
  :: d_step { R[m].up && !free_(m) && !R[m].prov && !R[m].expired && affordable(m) -> R[m].expired = true; ran_out(m) }
  :: d_step { R[m].up && R[m].prov && !R[m].lapsed && affordable(m) -> R[m].lapsed = true; ran_out(m) }
#if PROMOTED
  :: d_step { R[m].up && R[m].closed -> R[m].closed = false }
#endif
  od
}

proctype Faults() {
end:
  do
  :: d_step { faults > 0 && alive[0] -> faults--; end_of(0) }
  :: d_step { faults > 0 && alive[1] -> faults--; end_of(1) }
  :: d_step { faults > 0 -> faults = 0 }
#if PROMOTED
  :: atomic { !promoted ->
       promoted = true; R[1].up = true;
       if
       :: copy(R[1], R[0])
#if LOST
       :: missed -> copy(R[1], old)
#endif
#if LOST == 2
       :: true
#endif
       fi;
#ifdef WRITES
       written[1] = written[0];
#endif
       missed = false;
#if LOST
       old.f = 0; old.holder = NOBODY; old.cur = false; old.prov = false; old.lapsed = false; old.expired = false;
       old.condemned = false; old.closed = false; old.q[0] = false; old.q[1] = false; old.first = 0;
#endif
#if OLD_MASTER == 0
       R[0].up = false
#endif
     }
#if OLD_MASTER == 1
  :: d_step { promoted && R[0].up -> R[0].up = false }
#endif
#endif
  od
}

#define serves(i) (audible(i) && mine(i))
#define here(i) (alive[i] && inroom[i])

proctype Monitor() {
end:
  do
#if (LOST < 2 && OLD_MASTER == 0) || defined(ONE_VOICE_ALWAYS)
  :: d_step { audible(0) && audible(1) -> assert(false) }  /* one voice */
#endif
  :: timeout ->                                            /* nothing is left to happen */
     assert(!(audible(0) && audible(1)));                  /* one voice at last */
     assert(serves(0) || serves(1) || (!here(0) && !here(1))); /* no room without a holder */
     break
  od
}

init {
  atomic {
    R[0].up = true; R[0].holder = NOBODY;
#if PROMOTED
    R[1].holder = NOBODY;
#endif
#if LOST
    old.holder = NOBODY;
#endif
    alive[0] = true; alive[1] = true; inroom[0] = true; inroom[1] = true;
    pend[0] = true; request(0, 0); /* one of them is first */
    run Agent(0); run Agent(1);
#ifndef NO_WATCHER
    run Watcher();
#endif
    run Clock(0); run Faults(); run Monitor();
#if PROMOTED
    run Clock(1)
#endif
  }
}
