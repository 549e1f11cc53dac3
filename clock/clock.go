// Package clock measures how much time has passed, in integers that fit an
// atomic variable, whatever is done to the wall clock.
//
// Systems set their clock, by an hour when they have just started. Who keeps
// time.Time.UnixNano to subtract it later takes such a step for time: a link seems
// silent for an hour, or hears of its silence an hour late. A time.Time has the
// reading of a monotonic clock with it for that; this is the same for places where
// a time.Time is too large.
package clock

import "time"

// start is when the process started, near enough.
var start = time.Now()

// base keeps moments above zero, also in bubbles of testing/synctest, whose time
// begins before the process does.
const base = int64(100 * 365 * 24 * time.Hour)

// Now is this moment, in nanoseconds. Only differences of moments have a meaning.
// It is above zero, so that zero can stand for never.
func Now() int64 { return Of(time.Now()) }

// Of is the moment of t, which must come from time.Now: what has lost its
// monotonic reading is not compared rightly with what has one.
func Of(t time.Time) int64 { return base + int64(t.Sub(start)) }

// Since is how much time has passed since a moment.
func Since(at int64) time.Duration { return time.Duration(Now() - at) }
