package exact

import (
	"context"
	"errors"

	"github.com/holdfast-security/holdfast/internal/control/rollout"
	"github.com/holdfast-security/holdfast/internal/sim"
)

// Shrink is sim.Shrink for a world that is played host by host.
func Shrink(ctx context.Context, p rollout.Policy, w sim.World, v *sim.Violation) *sim.Violation {
	return shrink(ctx, p, w, v, nil)
}

func shrink(ctx context.Context, p rollout.Policy, w sim.World, v *sim.Violation, inject func(*world)) *sim.Violation {
	return sim.Shrink(w, v, func(less sim.World) (found *sim.Violation) {
		_, err := run(ctx, p, less, inject)
		errors.As(err, &found)
		return found
	})
}
