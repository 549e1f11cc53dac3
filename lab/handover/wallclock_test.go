//go:build virtualtime && wallclock

package handover

import (
	"time"
	_ "unsafe" // for go:linkname
)

//go:linkname synctestStep runtime.synctestStep
func synctestStep(ns int64)

var stepped time.Duration

// stepWall sets the wall clock of all bubbles by d.
func stepWall(d time.Duration) {
	stepped += d
	synctestStep(int64(d))
}

// wallBack undoes it all.
func wallBack() { stepWall(-stepped) }
