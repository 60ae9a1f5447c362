package admin

import (
	"context"
	"fmt"
	"time"

	gatewaypb "github.com/execgate/execgate/gen/execgate/v1"
	"github.com/execgate/execgate/policy"
	"github.com/execgate/execgate/store"
)

// dispatchSwitch returns the switch that is stored; nil when none is, which is on.
func dispatchSwitch(s *store.State) (*policy.Switch, error) {
	value, ok := s.Item(store.KindSwitch, policy.SwitchDispatch)
	if !ok {
		return nil, nil
	}
	sw, err := policy.DecodeSwitch(value)
	if err != nil {
		return nil, fmt.Errorf("switch %q: %w", policy.SwitchDispatch, err)
	}
	return sw, nil
}

// GetSwitches returns the switches of the store and of this gateway.
func (g *gateway) GetSwitches(ctx context.Context, _ *gatewaypb.GetSwitchesRequest) (*gatewaypb.GetSwitchesResponse, error) {
	s, err := g.core.read(ctx)
	if err != nil {
		return nil, err
	}
	dispatch, err := dispatchSwitch(s)
	if err != nil {
		return nil, err
	}
	return &gatewaypb.GetSwitchesResponse{Switches: g.switches(dispatch)}, nil
}

// SetSwitches turns the switches that are given.
func (g *gateway) SetSwitches(ctx context.Context, r *gatewaypb.SetSwitchesRequest) (*gatewaypb.SetSwitchesResponse, error) {
	var dispatch *policy.Switch
	after, err := g.core.store.Update(ctx, callerName(ctx), "SetSwitches", func(s *store.State) ([]store.Item, error) {
		before, err := dispatchSwitch(s)
		if err != nil {
			return nil, err
		}
		dispatch = before
		if wanted := r.GetSwitches().Dispatch; wanted == nil || *wanted == before.IsOn() {
			return nil, nil
		}
		dispatch = new(policy.Switch)
		var last time.Time
		if before != nil {
			*dispatch, last = *before, before.ChangedAt
		}
		dispatch.On, dispatch.ChangedAt = *r.GetSwitches().Dispatch, g.core.changeTime(last)
		value, err := dispatch.Encode()
		return one(store.Item{Kind: store.KindSwitch, ID: policy.SwitchDispatch, Value: value}, err)
	})
	if err != nil {
		return nil, err
	}
	return &gatewaypb.SetSwitchesResponse{Switches: g.switches(dispatch), Revision: after.Revision()}, nil
}

func (g *gateway) switches(dispatch *policy.Switch) *gatewaypb.Switches {
	return &gatewaypb.Switches{Dispatch: new(dispatch.IsOn()), KilledLocally: g.o.Killed()}
}
