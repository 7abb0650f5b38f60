package cache_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/peerlimit/peerlimit/cache"
)

type user struct{ Name string }

func ExampleCache_GetOrLoad() {
	users, err := cache.New[user](cache.Config{Namespace: "users"}) // Cluster: node
	if err != nil {
		fmt.Println(err)
		return
	}
	defer users.Close()

	ctx := context.Background()
	load := func(id string) cache.Loader[user] {
		return func(context.Context) (user, error) {
			fmt.Println("loading", id)
			if id != "ada" {
				return user{}, cache.ErrNotFound
			}
			return user{Name: "Ada"}, nil
		}
	}
	for _, id := range []string{"ada", "ada", "bob", "bob"} {
		u, err := users.GetOrLoad(ctx, id, 5*time.Minute, load(id))
		fmt.Println(u.Name, errors.Is(err, cache.ErrNotFound))
	}
	// Output:
	// loading ada
	// Ada false
	// Ada false
	// loading bob
	//  true
	//  true
}

func ExampleCache() {
	pages, err := cache.New[[]byte](cache.Config{Namespace: "pages"})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer pages.Close()

	ctx := context.Background()
	if err := pages.Set(ctx, "/", []byte("hello"), time.Minute); err != nil {
		fmt.Println(err)
	}
	page, ok, err := pages.Get(ctx, "/")
	fmt.Println(string(page), ok, err)
	if err := pages.Delete(ctx, "/"); err != nil {
		fmt.Println(err)
	}
	_, ok, err = pages.Get(ctx, "/")
	fmt.Println(ok, err)
	fmt.Println(pages.Set(ctx, "/", nil, 0))
	// Output:
	// hello true <nil>
	// false <nil>
	// cache: invalid ttl 0s: want 1ms to 8784h0m0s
}

func ExampleCounter() {
	visits, err := cache.NewCounter(cache.Config{Namespace: "visits"}) // Cluster: node
	if err != nil {
		fmt.Println(err)
		return
	}
	defer visits.Close()

	ctx := context.Background()
	for range 3 {
		n, err := visits.Incr(ctx, "home", 1, time.Hour)
		fmt.Println(n, err)
	}
	n, ok, err := visits.Get(ctx, "home")
	fmt.Println(n, ok, err)
	// Output:
	// 1 <nil>
	// 2 <nil>
	// 3 <nil>
	// 3 true <nil>
}
