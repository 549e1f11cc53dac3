//go:build virtualtime && !wallclock

package handover

import "time"

// stepWall does nothing where the wall clock in bubbles cannot be set: it takes the
// overlay that lab/virtualtime makes.
func stepWall(time.Duration) {}

func wallBack() {}
