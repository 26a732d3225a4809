# Time of one step against the length of the text, from bench.csv.
set lmargin at screen 0.115
set rmargin at screen depth_margin
set tmargin at screen 0.90
set bmargin at screen 0.1333
set logscale y
set yrange [depth_lo:depth_hi]
set xrange [0:depth_x_hi]
set title 'Time per token by context length'
set xlabel 'tokens before the step'
set ylabel 'ms per token (log scale)'
set ytics add ('' 0.15 1)
do for [d=-3:6] {
    set ytics add (sprintf('%g', 10.0**d) 10.0**d, sprintf('%g', 2*10.0**d) 2*10.0**d, sprintf('%g', 5*10.0**d) 5*10.0**d)
}
set label 1 'run '.run at screen 0.01, screen 0.03 font ',11' textcolor rgb '#555555' noenhanced
do for [i=1:n_depth] {
    set label 10 + i depth_text[i] at graph 1.04, first depth_y[i] left font ',12' textcolor rgb colour(depth_series[i]) noenhanced
    set arrow 10 + i from graph 1.004, first depth_end[i] to graph 1.034, first depth_y[i] nohead lw 1 lc rgb colour(depth_series[i])
}
do for [fmt in 'svg png'] {
    eval 'set term '.(fmt eq 'svg' ? svg : png)
    set output name.'.'.fmt
    plot for [i=0:n_depth-1] data using (column('series') == i ? column('tokens') : 1/0):'ms_per_token' with linespoints lw 2 lc rgb colour(i) dt dash(i) pt shape(i) ps 0.9
    unset output
}
