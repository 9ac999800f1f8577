package main

import (
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	clusterstate "lorad/coordinator/state"
	"lorad/proto"
)

type tokenCmd struct {
	Create tokenCreate `cmd:"" help:"Make a token."`
	Ls     tokenLs     `cmd:"" help:"List the tokens."`
	Rm     tokenRm     `cmd:"" help:"Revoke a token; nodes that joined with it stay."`
}

type tokenCreate struct {
	Role string        `enum:"worker,voter,witness,viewer,operator" default:"voter" help:"What it is for. Nodes join as worker (trains), voter (also elects) or witness (only elects); people call as viewer (sees) or operator (also runs)."`
	Uses uint32        `default:"1" help:"How many nodes may join with it."`
	TTL  time.Duration `name:"ttl" help:"How long it is valid (default: 1h for nodes, 720h for people)."`
	Name string        `help:"What or whom it is for, to know it again in the list."`
}

// createdToken is what -o json shows of a new token.
type createdToken struct {
	Addr      string `json:"addr"`
	Token     string `json:"token"`
	ID        string `json:"id"`
	Role      string `json:"role"`
	ExpiresMS int64  `json:"expires_unix_ms"`
}

func (t tokenCreate) Run(a *app) error {
	if err := atLeastOne(t.Uses, "--uses"); err != nil {
		return err
	}
	c, err := a.dial()
	if err != nil {
		return err
	}
	defer c.Close()
	reply, err := c.CreateToken(a.ctx, &proto.CreateTokenRequest{Uses: t.Uses, TtlMs: t.TTL.Milliseconds(), Role: t.Role, Name: t.Name})
	if err != nil {
		return err
	}
	v := createdToken{reply.Addr, reply.Token, reply.Id, reply.Role, reply.ExpiresUnixMs}
	return a.print(v, func(w io.Writer) {
		if clusterstate.Joins(reply.Role) {
			printJoin(w, reply, t.Uses)
		} else {
			printLogin(w, reply)
		}
	})
}

func printLogin(w io.Writer, t *proto.CreateTokenReply) {
	fmt.Fprintf(w, "for a person (%s), within %s:\n\n  LORAD_TOKEN=%s lorad login %s\n  lorad --server %s runs\n", t.Role, left(t.ExpiresUnixMs), t.Token, t.Addr, t.Addr)
}

// left is how long until a time, as people say it.
func left(unixMs int64) time.Duration { return time.Until(time.UnixMilli(unixMs)).Round(time.Second) }

// tokenView is a token as -o json shows it.
type tokenView struct {
	ID        string `json:"id"`
	Role      string `json:"role"`
	Name      string `json:"name,omitempty"`
	Uses      uint32 `json:"uses"`
	UsesLeft  uint32 `json:"uses_left"`
	CreatedMS int64  `json:"created_unix_ms"`
	ExpiresMS int64  `json:"expires_unix_ms"`
	MadeBy    string `json:"made_by"`
}

type tokenLs struct{}

func (tokenLs) Run(a *app) error {
	c, err := a.dial()
	if err != nil {
		return err
	}
	defer c.Close()
	reply, err := c.Tokens(a.ctx, &proto.TokensRequest{})
	if err != nil {
		return err
	}
	views := []tokenView{}
	for _, t := range reply.Tokens {
		views = append(views, tokenView{t.Id, t.Role, t.Name, t.Uses, t.UsesLeft, t.CreatedUnixMs, t.ExpiresUnixMs, t.MadeBy})
	}
	return a.print(views, func(w io.Writer) {
		out := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
		fmt.Fprintln(out, "ID\tROLE\tUSES LEFT\tEXPIRES\tNAME")
		for _, v := range views {
			fmt.Fprintf(out, "%s\t%s\t%s\t%s\t%s\n", v.ID, v.Role, usesLeft(v), expires(v.ExpiresMS), v.Name)
		}
		out.Flush()
	})
}

func usesLeft(v tokenView) string {
	if !clusterstate.Joins(v.Role) {
		return "any"
	}
	return fmt.Sprintf("%d of %d", v.UsesLeft, v.Uses)
}

func expires(unixMs int64) string {
	if d := left(unixMs); d > 0 {
		return "in " + d.String()
	}
	return "expired"
}

type tokenRm struct {
	ID string `arg:"" help:"The token's id, as lorad token ls shows it: never the token itself."`
}

func (t tokenRm) Run(a *app) error {
	c, err := a.dial()
	if err != nil {
		return err
	}
	defer c.Close()
	_, err = c.RemoveToken(a.ctx, &proto.RemoveTokenRequest{Id: t.ID})
	return err
}
