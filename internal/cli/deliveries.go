package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	gatewaypb "github.com/execgate/execgate/gen/execgate/v1"
)

const deliveriesHelp = `A delivery is one payload on its way to one asynchronous target. It is pending
until its target has it, parked while its target is disabled or its breaker is
open, delivered, or dead: given up, and kept so that it can be replayed.`

func (p *program) newDeliveries() *cobra.Command {
	return group(&cobra.Command{Use: "deliveries", Short: "List, show, replay and drop deliveries to targets", Long: deliveriesHelp},
		p.newDeliveriesList(), p.newDeliveriesShow(), p.newDeliveriesReplay(), p.newDeliveriesDrop())
}

func (p *program) newDeliveriesList() *cobra.Command {
	var o format
	req := &gatewaypb.ListDeliveriesRequest{}
	cmd := &cobra.Command{
		Use: "list", Short: "List deliveries, the newest first", Args: cobra.NoArgs,
		Example: "  execgate deliveries list --state dead --target crm",
	}
	cmd.Flags().StringVar(&req.State, "state", "", "only `STATE`: pending, parked, delivered or dead")
	cmd.Flags().StringVar(&req.Target, "target", "", "only those to the target `NAME`, or of this id")
	cmd.Flags().Uint32Var(&req.Limit, "limit", 100, "at most `N`, 1000 at most")
	cmd.Flags().StringVar(&req.Cursor, "cursor", "", "go on where the list before ended")
	return p.remote(cmd, &o, func(ctx context.Context, s *session, _ []string) error {
		if req.GetLimit() > pageSize {
			return usage("--limit is %d at most", pageSize)
		}
		if err := checkDeliveryState(req.GetState()); err != nil {
			return err
		}
		res, err := s.gateway.ListDeliveries(ctx, req)
		if err != nil {
			return err
		}
		return s.show(res, func(w io.Writer) {
			g := &grid{head: []string{"ID", "STATE", "TARGET", "ATTEMPTS", "CREATED", "LAST"}}
			for _, d := range res.GetDeliveries() {
				g.row(d.GetId(), d.GetState(), deliveryTarget(d), strconv.FormatUint(uint64(d.GetAttempts()), 10),
					stamp(d.GetCreatedAt()), lastOutcome(d))
			}
			g.write(w, "no deliveries")
			if next := res.GetNextCursor(); next != "" {
				_, _ = fmt.Fprintf(w, "there are more: --cursor %s\n", plainText(next))
			}
		})
	}, noWords, flagWords("target", someTargets))
}

func deliveryTarget(d *gatewaypb.Delivery) string {
	if name := d.GetTargetName(); name != "" {
		return name
	}
	return d.GetTarget()
}

// lastOutcome says how the last attempt ended, and why a dead one is dead.
func lastOutcome(d *gatewaypb.Delivery) string {
	var words []string
	if d.GetReason() != "" {
		words = append(words, d.GetReason())
	}
	if h := d.GetHistory(); len(h) > 0 {
		words = append(words, attemptText(h[len(h)-1]))
	}
	return strings.Join(words, ": ")
}

func attemptText(a *gatewaypb.DeliveryAttempt) string {
	if a.GetStatus() == 0 {
		return a.GetOutcome()
	}
	return fmt.Sprintf("%s %d", a.GetOutcome(), a.GetStatus())
}

func (p *program) newDeliveriesShow() *cobra.Command {
	var o format
	cmd := &cobra.Command{Use: "show ID", Short: "Show a delivery, its attempts and its payload", Args: exactly("ID")}
	return p.remote(cmd, &o, func(ctx context.Context, s *session, args []string) error {
		res, err := s.gateway.GetDelivery(ctx, &gatewaypb.GetDeliveryRequest{Id: args[0]})
		if err != nil {
			return unknownDelivery(err, args[0])
		}
		return s.show(res.GetDelivery(), func(w io.Writer) { writeDelivery(w, res.GetDelivery()) })
	}, noWords)
}

func writeDelivery(w io.Writer, d *gatewaypb.Delivery) {
	g := &grid{}
	g.row("id", d.GetId())
	g.row("state", d.GetState())
	if d.GetReason() != "" {
		g.row("reason", d.GetReason())
	}
	g.row("target", deliveryTarget(d))
	g.row("execution", d.GetExecution())
	g.row("kind", d.GetKind())
	g.row("created", stamp(d.GetCreatedAt()))
	if d.GetNextAttemptAt() != nil {
		g.row("next attempt", stamp(d.GetNextAttemptAt()))
	}
	if d.GetEndedAt() != nil {
		g.row("ended", stamp(d.GetEndedAt()))
	}
	g.row("attempts", strconv.FormatUint(uint64(d.GetAttempts()), 10))
	g.write(w, "")
	if len(d.GetHistory()) > 0 {
		_, _ = fmt.Fprintln(w)
		h := &grid{head: []string{"ATTEMPT", "TIME", "OUTCOME", "LATENCY", "DETAIL"}}
		for _, a := range d.GetHistory() {
			h.row(strconv.FormatUint(uint64(a.GetNumber()), 10), stamp(a.GetTime()), attemptText(a), a.GetLatency().AsDuration().String(), a.GetDetail())
		}
		h.write(w, "")
	}
	switch {
	case d.GetPayloadSealed():
		_, _ = fmt.Fprintln(w, "\nthe payload is encrypted, and this gateway has no key that opens it")
	case d.GetPayload() != "":
		_, _ = fmt.Fprintf(w, "\n%s\n", plainText(d.GetPayload()))
	}
}

func (p *program) newDeliveriesReplay() *cobra.Command {
	var o format
	var all bool
	var target string
	cmd := &cobra.Command{
		Use: "replay [ID...]", Short: "Try dead letters again",
		Long: `Makes dead letters pending again, due at once and under their ids: those that are
named, those of a target, or all.`,
		Example: "  execgate deliveries replay 0dcg4m1k0s2v0v4k3n1r5t7u9w\n  execgate deliveries replay --target crm\n  execgate deliveries replay --all",
	}
	cmd.Flags().BoolVar(&all, "all", false, "all dead letters")
	cmd.Flags().StringVar(&target, "target", "", "the dead letters of the target `NAME`, or of this id")
	return p.remote(cmd, &o, func(ctx context.Context, s *session, args []string) error {
		if given := len(args) > 0; given == (all || target != "") || all && target != "" {
			return usage("%s: name dead letters, or write --target NAME, or --all", cmd.CommandPath())
		}
		if len(args) == 0 {
			res, err := s.gateway.ReplayDeliveries(ctx, &gatewaypb.ReplayDeliveriesRequest{State: "dead", Target: target})
			if err != nil {
				return err
			}
			return s.show(res, func(w io.Writer) { _, _ = fmt.Fprintf(w, "%d replayed\n", res.GetReplayed()) })
		}
		return s.eachDelivery(args, "replayed", func(id string) error {
			_, err := s.gateway.ReplayDelivery(ctx, &gatewaypb.ReplayDeliveryRequest{Id: id})
			return err
		})
	}, noWords, flagWords("target", someTargets))
}

func (p *program) newDeliveriesDrop() *cobra.Command {
	var o format
	req := &gatewaypb.DropDeliveriesRequest{}
	cmd := &cobra.Command{
		Use: "drop [ID...]", Short: "Forget deliveries",
		Long: `Forgets deliveries: those that are named, or those of a state, of a target, or of
both. An attempt that is running goes on, but is the last.`,
		Example: "  execgate deliveries drop 0dcg4m1k0s2v0v4k3n1r5t7u9w\n  execgate deliveries drop --state dead --target crm",
	}
	cmd.Flags().StringVar(&req.State, "state", "", "all of `STATE`: pending, parked, delivered or dead")
	cmd.Flags().StringVar(&req.Target, "target", "", "all of the target `NAME`, or of this id")
	return p.remote(cmd, &o, func(ctx context.Context, s *session, args []string) error {
		if given := len(args) > 0; given == (req.GetState() != "" || req.GetTarget() != "") {
			return usage("%s: name deliveries, or write --state STATE, --target NAME, or both", cmd.CommandPath())
		}
		if err := checkDeliveryState(req.GetState()); err != nil {
			return err
		}
		if len(args) == 0 {
			res, err := s.gateway.DropDeliveries(ctx, req)
			if err != nil {
				return err
			}
			return s.show(res, func(w io.Writer) { _, _ = fmt.Fprintf(w, "%d dropped\n", res.GetDropped()) })
		}
		return s.eachDelivery(args, "dropped", func(id string) error {
			_, err := s.gateway.DropDelivery(ctx, &gatewaypb.DropDeliveryRequest{Id: id})
			return err
		})
	}, noWords, flagWords("target", someTargets))
}

func checkDeliveryState(state string) error {
	switch state {
	case "", "pending", "parked", "delivered", "dead":
		return nil
	}
	return usage("--state is pending, parked, delivered or dead")
}

// eachDelivery does something to every id, also when it fails for one.
func (s *session) eachDelivery(ids []string, done string, do func(id string) error) error {
	var errs []error
	successes := []string{}
	for _, id := range ids {
		if err := do(id); err != nil {
			errs = append(errs, unknownDelivery(err, id))
			continue
		}
		successes = append(successes, id)
	}
	if err := s.show(members{{done, successes}}, func(w io.Writer) {
		for _, id := range successes {
			_, _ = fmt.Fprintf(w, "%s %s\n", cellText(id), done)
		}
	}); err != nil {
		return err
	}
	if len(errs) == 1 {
		return errs[0]
	}
	return errors.Join(errs...)
}

func unknownDelivery(err error, id string) error {
	if status.Code(err) != codes.NotFound {
		return err
	}
	return &Failure{fmt.Errorf("there is no delivery %q", id), "execgate deliveries list shows them"}
}
