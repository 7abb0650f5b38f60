package grpclimit_test

import (
	"context"
	"fmt"
	"net"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"github.com/peerlimit/peerlimit/ratelimit"
	"github.com/peerlimit/peerlimit/ratelimit/grpclimit"
)

func Example() {
	limits, err := ratelimit.New(ratelimit.Config{})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer limits.Close()
	cfg := grpclimit.Config{
		Limiter: limits,
		Rules: []grpclimit.Rule{
			grpclimit.By(ratelimit.PerHour("ip", 2), grpclimit.ClientIP(ratelimit.Trusted{})),
			grpclimit.By(ratelimit.PerMinute("method", 5000), grpclimit.Method()),
		},
	}
	server := grpc.NewServer(
		grpc.ChainUnaryInterceptor(grpclimit.Unary(cfg)),
		grpc.ChainStreamInterceptor(grpclimit.Stream(cfg)),
	)
	grpc_health_v1.RegisterHealthServer(server, health.NewServer())
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		fmt.Println(err)
		return
	}
	go server.Serve(listener)
	defer server.Stop()

	conn, err := grpc.NewClient(listener.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		fmt.Println(err)
		return
	}
	defer conn.Close()
	client := grpc_health_v1.NewHealthClient(conn)
	for range 3 {
		_, err := client.Check(context.Background(), &grpc_health_v1.HealthCheckRequest{})
		st := status.Convert(err)
		fmt.Print(st.Code())
		for _, d := range st.Details() {
			switch d := d.(type) {
			case *errdetails.RetryInfo:
				fmt.Print(", come back in ", d.RetryDelay.AsDuration().Round(time.Minute))
			case *errdetails.QuotaFailure:
				fmt.Print(", ", d.Violations[0].Subject)
			}
		}
		fmt.Println()
	}
	// Output:
	// OK
	// OK
	// ResourceExhausted, come back in 30m0s, policy:ip
}
